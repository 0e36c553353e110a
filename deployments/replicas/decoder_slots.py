"""The slots of a codec decoder, and the streams that wait for one.

The ingress decides how many streams begin (`speech/admission.py`). The slots are the bound of the decoder's memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded

# The first piece of a stream is due this long after its frames have come.
_START_S = 2 * FRAME_S


@dataclass(eq=False)
class Listener:
    """The listener of one stream, and what the stream wants of the decoder."""

    playback: Playback
    waits: bool = False  # for a piece that has yet to be decoded

    @property
    def continues_a_text(self) -> bool:
        """Whether the listener hears an earlier piece of the same text before."""
        return self.playback.continues

    def due_s(self, now: float) -> float:
        """When a piece that arrives now must be decoded."""
        return now + self.playback.ahead + _START_S if self.playback.first_sent is None else self.playback.ends


class DecoderSlots:
    """Slots for up to `slots` streams; as many more may wait for one.

    Everything is called on one event loop. `changed` is called whenever streams come or go.
    """

    def __init__(self, slots: int, changed: Callable[[], None] = lambda: None) -> None:
        self._slots = slots
        self._changed = changed
        self._listeners: set[Listener] = set()
        self._queue: list[tuple[Listener, asyncio.Future[None]]] = []

    @property
    def in_use(self) -> int:
        return len(self._listeners)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def slot(self, playback: Playback) -> AsyncIterator[Listener]:
        """Wait for a slot and hold it. Raises Overloaded when too many streams are waiting."""
        if len(self._queue) >= self._slots:
            raise Overloaded(
                f"all {self._slots} slots of the decoder are in use, and {len(self._queue)} requests are waiting; try"
                " again later"
            )
        listener = Listener(playback)
        admitted = asyncio.get_running_loop().create_future()
        self._queue.append((listener, admitted))
        self._admit()
        try:
            await admitted
            assert listener in self._listeners, "a stream was admitted without a slot"
            yield listener
        finally:
            self._listeners.discard(listener)
            self._queue = [entry for entry in self._queue if entry[0] is not listener]
            self._admit()

    def _admit(self) -> None:
        """Give free slots to the streams that wait: continued texts first, then by deadline."""
        while self._queue and len(self._listeners) < self._slots:
            entry = min(self._queue, key=lambda entry: (not entry[0].continues_a_text, entry[0].playback.ends))
            self._queue.remove(entry)
            listener, admitted = entry
            if not admitted.done():  # else its request was cancelled just now
                self._listeners.add(listener)
                admitted.set_result(None)
        assert len(self._listeners) <= self._slots, f"{len(self._listeners)} streams on {self._slots} slots"
        self._changed()
