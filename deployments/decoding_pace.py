"""Who may have a place on a codec decoder: as many streams as it can decode in time, and others as they have audio in
hand."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deployments.playback import Playback
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.errors import Overloaded

# Streams beyond what this share of the time can decode begin only where the others have so much audio in hand.
_SHARE = 0.7
_LEAST_HEADROOM_S = 3 * FRAME_S
_WEIGHT = 0.1  # of the newest batch in the average
# What a batch may take, because whoever comes in the middle of it waits for its end; but fewer frames are not cheaper.
_BATCH_S = FRAME_S / 2
_LEAST_FRAMES = 8


@dataclass(eq=False)
class Listener:
    """Of one stream: what he has heard, and whether he waits for something that has yet to be decoded."""

    playback: Playback
    waits: bool = True


class DecodingPace:
    """Places for up to `slots` streams; as many may wait for one. On one event loop."""

    def __init__(self, slots: int) -> None:
        self.frame_s = FRAME_S  # that decoding a frame takes, on average; not known yet
        self._slots = slots
        self._kept = False
        self._listeners: set[Listener] = set()
        self._queue: list[tuple[Listener, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def frames_at_once(self) -> int:
        """How many frames a batch may have."""
        return max(_LEAST_FRAMES, int(_BATCH_S / self.frame_s))

    def begin(self, frame_s: float) -> None:
        """A frame alone takes so long. Where not even two streams would be in time, none waits for others."""
        self.frame_s = frame_s
        self._kept = 2 * frame_s <= _SHARE * FRAME_S

    def observe(self, frame_s: float) -> None:
        """A frame of the newest batch took so long."""
        self.frame_s += _WEIGHT * (frame_s - self.frame_s)

    @asynccontextmanager
    async def place(self, ahead_s: float) -> AsyncIterator[Listener]:
        """A place for a stream whose listener has `ahead_s` of other audio to hear first. Raises Overloaded."""
        if len(self._queue) >= self._slots:
            streams, waiting = len(self._listeners), len(self._queue)
            raise Overloaded(
                f"{streams} streams are all that can be decoded in time and {waiting} requests are waiting"
            )
        listener = Listener(Playback(requested=time.monotonic(), ahead=ahead_s))
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((listener, turn))
        self.admit()
        try:
            await turn
            yield listener
        finally:
            self._listeners.discard(listener)
            self._queue = [entry for entry in self._queue if entry[0] is not listener]
            self.admit()

    def admit(self) -> None:
        """Let in whoever may begin now, the most urgent first: after every batch, and when a stream has ended."""
        while self._queue and self._has_room():
            entry = min(self._queue, key=lambda entry: entry[0].playback.ends)
            self._queue.remove(entry)
            listener, turn = entry
            if not turn.done():  # he may have left just now
                self._listeners.add(listener)
                turn.set_result(None)

    def _has_room(self) -> bool:
        if len(self._listeners) >= self._slots:
            return False
        now = time.monotonic()
        busy = [listener for listener in self._listeners if listener.waits or listener.playback.ends > now]
        if not self._kept or (len(busy) + 1) * self.frame_s <= _SHARE * FRAME_S:
            return True
        return all(listener.playback.ends - now >= _LEAST_HEADROOM_S for listener in busy)
