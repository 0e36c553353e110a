"""Does the machine keep up? A stream plays a frame in 80 ms, so a step for everybody must not take longer.

What a step takes with how many rows is learned from the steps there have been, and forgotten: the machine does other
things too.
"""

from collections.abc import Callable

FRAME_S = 0.08
LIMIT_S = 0.9 * FRAME_S  # that a step may take; the rest is for the prompts of newcomers

_WEIGHT = 0.1  # of the newest step in an average
_MEMORY_S = 300.0


class Pace:
    """Step times by number of rows: how many streams can be given their frames in time, and whether there is time to
    read some of a newcomer's prompt."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._steps: dict[int, tuple[float, float]] = {}  # rows -> average seconds, when last seen
        self._piece = 0.0  # seconds that reading a piece of a prompt adds to a step

    def observe(self, rows: int, seconds: float, *, read: bool) -> None:
        """A step of `rows` took `seconds`; with `read`, a piece of a prompt was read in it."""
        before = self._step(rows)
        if not read:  # more rows take no less, and fewer no more
            average = seconds if before is None else before + _WEIGHT * (seconds - before)
            for others, (known, seen) in self._steps.items():
                self._steps[others] = (max if others > rows else min)(known, average), seen
            self._steps[rows] = average, self._clock()
        elif before is not None:
            self._piece += 0.5 * (max(0.0, seconds - before) - self._piece)

    def allows(self, rows: int) -> bool | None:
        """Whether one stream more, which makes them `rows`, leaves the others in time; None when that is not known yet.

        It is tried once a step of the present ones has been seen and has room for what another adds, as far as that is
        known; from then on it is known.
        """
        if (known := self._step(rows)) is not None:
            return known <= LIMIT_S
        if (now := self._step(rows - 1)) is None:
            return None
        fewer = {n: self._step(n) for n in self._steps if n < rows - 1}
        growth = max(((now - s) / (rows - 1 - n) for n, s in fewer.items() if s is not None), default=0.0)
        return now + max(0.0, growth) <= LIMIT_S

    def can_read(self, headroom: float) -> bool:
        """Whether the stream with the least audio in hand, `headroom` seconds, can wait for a piece of a prompt."""
        return headroom >= self._piece

    def _step(self, rows: int) -> float | None:
        average, seen = self._steps.get(rows, (0.0, float("-inf")))
        return average if self._clock() - seen <= _MEMORY_S else None
