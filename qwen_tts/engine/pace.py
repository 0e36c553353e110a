"""Whether the machine keeps pace: a stream plays a frame in 80 ms, so a step for all streams must not take longer.

The time of a step with a number of rows is learned from the steps that were run. It is forgotten after a while, because
the machine has other work too.
"""

from collections.abc import Callable
from typing import Literal

FRAME_S = 0.08
LIMIT_S = 0.9 * FRAME_S  # for one step; the rest is for the prompts of newcomers

Verdict = Literal["yes", "no", "unknown"]

_WEIGHT = 0.1  # of the newest step in the average
_MEMORY_S = 300.0
# A step that hiccups counts as at most this multiple of the average: one that only decodes, and one that reads too.
_MOST = 2.0, 4.0


class Pace:
    """Step times by number of rows. They say whether one stream more is possible, and when a newcomer's prompt may be
    read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._steps: dict[int, tuple[float, float]] = {}  # rows -> average seconds, when last seen
        self._piece = 0.0  # seconds that a piece of a prompt adds to a step

    def observe(self, rows: int, seconds: float, *, read: bool) -> None:
        """Count a step of `rows` that took `seconds`. read: a piece of a prompt was read in it."""
        assert rows > 0, "a step of no rows says nothing about rows"
        assert seconds >= 0, f"a step of {seconds} s"
        before = self._step(rows)
        if read:
            if before is not None:
                self._piece += 0.5 * (min(max(0.0, seconds - before), _MOST[1] * before) - self._piece)
        else:
            average = seconds if before is None else before + _WEIGHT * (min(seconds, _MOST[0] * before) - before)
            self._steps[rows] = average, self._clock()

    def allows(self, rows: int) -> Verdict:
        """Whether one stream more, which makes `rows` of them, leaves every stream in time.

        "yes" also where `rows` have never been seen, but a step of the present streams has room for one more. "unknown"
        while no step of the present streams has been seen.
        """
        if (now := self._step(rows - 1)) is None:
            return "unknown"
        if (known := self._step(rows)) is not None:
            return _verdict(max(now, known) <= LIMIT_S)
        growth = max(((now - s) / (rows - 1 - n) for n, (s, _) in self._steps.items() if n < rows - 1), default=0.0)
        return _verdict(now + max(0.0, growth) <= LIMIT_S)

    def most_in_time(self, most: int) -> int:
        """Return how many streams, from 1 to `most`, a step can make in time, by the steps that have been seen."""
        seen = {rows: step for rows in self._steps if (step := self._step(rows)) is not None}
        late = min((rows for rows, step in seen.items() if step > LIMIT_S), default=most + 1)
        in_time = {rows: step for rows, step in seen.items() if rows < late}
        if len(in_time) > 1:
            low, high = min(in_time), max(in_time)
            growth = (in_time[high] - in_time[low]) / (high - low)
            if growth > 0:
                late = min(late, high + 1 + int((LIMIT_S - in_time[high]) / growth))
        return max(1, min(most, late - 1))

    def is_easy(self, rows: int) -> bool:
        """Whether a step of `rows` takes at most half of the limit."""
        return (self._step(rows) or 0.0) <= LIMIT_S / 2

    def can_read(self, rows: int, headroom: float) -> bool:
        """Whether a step of `rows` may read a piece of a prompt.

        It may if the stream with the least audio in hand, `headroom` seconds, can wait for it, or if steps are over the
        limit even without it.
        """
        step = self._step(rows) or 0.0
        return headroom >= step + self._piece or step > LIMIT_S

    def _step(self, rows: int) -> float | None:
        average, seen = self._steps.get(rows, (0.0, float("-inf")))
        return average if self._clock() - seen <= _MEMORY_S else None


def _verdict(in_time: bool) -> Verdict:
    return "yes" if in_time else "no"
