"""Admission to a codec decoder: another stream begins only if no listener will run out of audio because of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded

# The audio that listeners will need within each of these times may take at most this share of that time to decode.
# Short horizons protect a listener who is about to run out, long ones keep the decoder from being overbooked. The rest
# of the time is for frames that come late and for other work of the machine.
_HORIZONS_S = tuple(frames * FRAME_S for frames in (2, 4, 8, 12))
_SHARE = 0.5
# A new stream is counted as this much audio behind, so that it soon has as much in hand. Its first frame is due this
# long after it could come.
_START_S = 2 * FRAME_S
# The weight of the newest batch in the average cost.
_WEIGHT = 0.1
# A batch may take this long, because a piece that arrives in the middle of a batch waits for its end. It may always
# have this many frames: a smaller batch costs almost as much.
_BATCH_S = FRAME_S / 2
_LEAST_FRAMES = 8


@dataclass(frozen=True)
class DecodeCost:
    """What decoding takes: `batch_s` for a batch and `frame_s` for each frame in it."""

    batch_s: float
    frame_s: float

    @classmethod
    def measured(cls, one_s: float, many_s: float, many: int) -> "DecodeCost":
        """The cost by two batches: one frame took `one_s`, `many` frames took `many_s`."""
        # Noise can make one frame look slower than many. A frame then still costs half of its share of the batch.
        frame_s = max((many_s - one_s) / (many - 1), many_s / many / 2)
        return cls(max(0.0, one_s - frame_s), frame_s)

    def of_batch(self, frames: float) -> float:
        """Seconds that one batch of `frames` takes."""
        return self.batch_s + frames * self.frame_s

    def scaled(self, factor: float) -> "DecodeCost":
        return DecodeCost(self.batch_s * factor, self.frame_s * factor)

    @property
    def frames_at_once(self) -> int:
        """How many frames a batch may have."""
        return max(_LEAST_FRAMES, int((_BATCH_S - self.batch_s) / self.frame_s))

    @property
    def streams_in_time(self) -> int:
        """How many streams can be decoded in real time. At least 1."""
        return max(1, int((_SHARE * FRAME_S - self.batch_s) / self.frame_s))

    @property
    def allows_two_streams(self) -> bool:
        """Whether two streams can be decoded in real time."""
        return self.of_batch(2) <= _SHARE * FRAME_S


def fits(cost: DecodeCost, in_hand_s: Sequence[float]) -> bool:
    """Return whether the listeners' streams can all be decoded in time. `in_hand_s` is the audio that each has left.

    Within a horizon h, a listener with s seconds in hand needs max(0, h - s) more. All listeners together need n frames
    of FRAME_S. Streams make their frames one by one, so a batch holds one frame of every stream at best. Then there are
    h / FRAME_S batches, or n if that is less:

        min(n, h / FRAME_S) * batch_s + n * frame_s  <=  _SHARE * h         for every h in _HORIZONS_S

    The bound of a batch's frames plays no part: a batch beyond it takes more than _SHARE of a frame's time.
    """
    for horizon_s in _HORIZONS_S:
        frames = sum(max(0.0, horizon_s - seconds) for seconds in in_hand_s) / FRAME_S
        batches = min(frames, horizon_s / FRAME_S)
        if batches * cost.batch_s + frames * cost.frame_s > _SHARE * horizon_s:
            return False
    return True


@dataclass(eq=False)
class Listener:
    """The listener of one stream, and what the stream wants of the decoder."""

    playback: Playback
    admitted_s: float | None = None
    waits: bool = False  # for a piece that has yet to be decoded

    @property
    def continues_a_text(self) -> bool:
        """Whether the listener hears an earlier piece of the same text before."""
        return self.playback.continues

    def in_hand_s(self, now: float) -> float:
        """Seconds of audio that the listener has yet to hear."""
        if self.playback.first_sent is None:
            return self.playback.ahead - _START_S
        return self.playback.headroom(now)

    def due_s(self, now: float) -> float:
        """When a piece that arrives now must be decoded."""
        return now + self.playback.ahead + _START_S if self.playback.first_sent is None else self.playback.ends

    def is_busy(self, now: float) -> bool:
        """Whether the stream wants something of the decoder now or soon.

        A stream that has run out of audio and wants nothing has a writer who pauses. A new stream whose first frame is
        overdue waits for its talker.
        """
        if self.waits:
            return True
        if self.playback.first_sent is None:
            assert self.admitted_s is not None, "a stream that waits for its slot is not busy"
            return now < self.admitted_s + _START_S
        return self.playback.ends > now


class Admission:
    """Slots for up to `slots` streams; as many more may wait for one.

    Everything but `observe` is called on one event loop. `changed` is called whenever streams come or go.
    """

    def __init__(self, slots: int, changed: Callable[[], None] = lambda: None) -> None:
        self._slots = slots
        self._changed = changed
        self._cost = DecodeCost(0.0, FRAME_S)  # until it is measured
        self._keeps_up = False
        self._listeners: set[Listener] = set()
        self._queue: list[tuple[Listener, asyncio.Future[None]]] = []
        self._again: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> int:
        return len(self._listeners)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def cost(self) -> DecodeCost:
        return self._cost

    @cost.setter
    def cost(self, cost: DecodeCost) -> None:
        # One assignment of a frozen value: another thread sees the old cost or the new one, never half of each.
        self._cost = cost
        # A latch. A machine that cannot decode two streams in real time would admit them one by one for ever, so there
        # only the slots count. A machine that could do it once is slow because it is loaded: there admission stays on.
        self._keeps_up = self._keeps_up or cost.allows_two_streams

    def observe(self, frames: int, took_s: float) -> None:
        """Learn from the newest batch how fast the machine is now. Called by the decoder's thread.

        One batch cannot tell `batch_s` from `frame_s`, so their ratio stays as it was measured at the start.
        """
        cost = self._cost
        self.cost = cost.scaled(1 + _WEIGHT * (took_s / cost.of_batch(frames) - 1))

    @asynccontextmanager
    async def slot(self, playback: Playback) -> AsyncIterator[Listener]:
        """Wait for a slot and hold it. Raises Overloaded when too many streams are waiting."""
        if len(self._queue) >= self._slots:
            raise Overloaded(
                f"the decoder has all the streams it can decode in time ({len(self._listeners)} streams), and"
                f" {len(self._queue)} requests are waiting; try again later"
            )
        listener = Listener(playback)
        admitted = asyncio.get_running_loop().create_future()
        self._queue.append((listener, admitted))
        self.admit()
        try:
            await admitted
            assert listener in self._listeners, "a stream was admitted without a slot"
            yield listener
        finally:
            self._listeners.discard(listener)
            self._queue = [entry for entry in self._queue if entry[0] is not listener]
            self.admit()

    def admit(self) -> None:
        """Admit every stream that may begin now: continued texts first, then by deadline.

        Called after every piece and when a stream has ended. While streams wait it is also called once a frame, because
        the streams that keep them out may have stopped wanting anything.
        """
        if self._again is not None:
            self._again.cancel()
            self._again = None
        while self._queue:
            entry = min(self._queue, key=lambda entry: (not entry[0].continues_a_text, entry[0].playback.ends))
            listener, admitted = entry
            if not self._has_room(listener):
                self._again = asyncio.get_running_loop().call_later(FRAME_S, self.admit)
                break
            self._queue.remove(entry)
            if not admitted.done():  # else its request was cancelled just now
                listener.admitted_s = time.monotonic()
                self._listeners.add(listener)
                admitted.set_result(None)
        assert len(self._listeners) <= self._slots, f"{len(self._listeners)} streams on {self._slots} slots"
        assert not self._queue or self._again is not None, "streams wait and nothing will admit them"
        self._changed()

    def _has_room(self, newcomer: Listener) -> bool:
        if len(self._listeners) >= self._slots:
            return False
        if newcomer.continues_a_text:
            return True  # the whole text was admitted with its first piece; waiting now would break it off
        now = time.monotonic()
        busy = [listener for listener in self._listeners if listener.is_busy(now)]
        if not self._keeps_up or not busy:
            return True
        return fits(self._cost, [listener.in_hand_s(now) for listener in (newcomer, *busy)])
