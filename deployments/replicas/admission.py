"""Who may have a place on a codec decoder: another stream, as long as nobody will run out of audio for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded

# What is wanted within each of these times may take this share of it to decode.
_HORIZONS_S = tuple(frames * FRAME_S for frames in (2, 4, 8, 12))
_SHARE = 0.5
# A stream that begins wants so much more, to have that in hand.
_START_S = 2 * FRAME_S
_WEIGHT = 0.1  # of the newest batch in the average
# What a batch may take, because whoever comes in the middle of it waits for its end; but of few frames it is mostly
# what any batch takes.
_BATCH_S = FRAME_S / 2
_LEAST_FRAMES = 8


@dataclass(eq=False)
class Listener:
    """Of one stream: what he has heard, and whether he waits for something that has yet to be decoded."""

    playback: Playback
    waits: bool = True

    @property
    def goes_on(self) -> bool:
        """Whether he hears another piece of the same text before."""
        return self.playback.ahead > 0

    def in_hand(self, now: float) -> float:
        """Seconds of audio that he has yet to hear."""
        if self.playback.first_sent is None:
            return self.playback.ahead - _START_S
        return self.playback.ends - now


class DecodingPace:
    """Places for up to `slots` streams; as many may wait for one. On one event loop."""

    def __init__(self, slots: int) -> None:
        # What a batch takes, and each frame in it; not known yet.
        self.batch_s, self.frame_s = 0.0, FRAME_S
        self._slots = slots
        self._kept = False
        self._listeners: set[Listener] = set()
        self._queue: list[tuple[Listener, asyncio.Future[None]]] = []
        self._again: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def frames_at_once(self) -> int:
        """How many frames a batch may have."""
        return max(_LEAST_FRAMES, int((_BATCH_S - self.batch_s) / self.frame_s))

    def begin(self, one_s: float, many_s: float, many: int) -> None:
        """A frame alone takes `one_s`, and `many` together `many_s`."""
        # Of times that noise has put the wrong way round, a frame takes its part all the same.
        self.frame_s = max((many_s - one_s) / (many - 1), many_s / many / 2)
        self.batch_s = max(0.0, one_s - self.frame_s)
        self._note()

    def observe(self, frames: int, took_s: float) -> None:
        """The newest batch. Only how fast the machine is now is learned from it, not what the two parts are."""
        slower = 1 + _WEIGHT * (took_s / (self.batch_s + frames * self.frame_s) - 1)
        self.batch_s *= slower
        self.frame_s *= slower
        self._note()

    def _note(self) -> None:
        """Where not even two streams would be in time, none waits for others. Once they would have been, a busy machine
        is all that it can be."""
        self._kept = self._kept or self.batch_s + 2 * self.frame_s <= _SHARE * FRAME_S

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
        """Let in whoever may begin now, first what goes on with a text that is being heard, then the most urgent.

        After every batch, when a stream has ended, and soon again while somebody waits, because those who keep him out
        may have ceased to want anything.
        """
        if self._again is not None:
            self._again.cancel()
            self._again = None
        while self._queue:
            entry = min(self._queue, key=lambda entry: (not entry[0].goes_on, entry[0].playback.ends))
            listener, turn = entry
            if not self._has_room(listener):
                self._again = asyncio.get_running_loop().call_later(FRAME_S, self.admit)
                return
            self._queue.remove(entry)
            if not turn.done():  # he may have left just now
                self._listeners.add(listener)
                turn.set_result(None)

    def _has_room(self, newcomer: Listener) -> bool:
        if len(self._listeners) >= self._slots:
            return False
        if newcomer.goes_on:
            return True  # with the whole text this has been let in; to wait would break it off
        now = time.monotonic()
        busy = [listener for listener in self._listeners if listener.waits or listener.playback.ends > now]
        if not self._kept or not busy:
            return True
        in_hand_s = [listener.in_hand(now) for listener in (newcomer, *busy)]
        wanted_s = [sum(max(0.0, horizon - seconds) for seconds in in_hand_s) for horizon in _HORIZONS_S]
        return all(
            self._takes_s(seconds / FRAME_S, horizon) <= _SHARE * horizon
            for horizon, seconds in zip(_HORIZONS_S, wanted_s, strict=True)
        )

    def _takes_s(self, frames: float, horizon_s: float) -> float:
        """To decode `frames` of several streams, which come one by one: where there is little time, one of every stream
        in a batch."""
        batches = min(frames, max(horizon_s / FRAME_S, frames / self.frames_at_once))
        return batches * self.batch_s + frames * self.frame_s
