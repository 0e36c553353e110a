"""Does the machine keep up? A stream plays a frame in 80 ms, so a step for everybody must not take longer.

What a step takes with how many rows is learned from the steps there have been. Time is shared with whatever else the
machine does, so it is a running average, not a property of the model.
"""

FRAME_S = 0.08

_WEIGHT = 0.1  # of the newest step in the average
_SHARE = 0.9  # of a frame that a step may take: prompts of newcomers are read in between


class Pace:
    """Step times by number of rows, and how many rows can be served without a listener waiting."""

    def __init__(self) -> None:
        self._times: dict[int, float] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """A step that gave `rows` sequences a frame and read no prompt took `seconds`."""
        before = self._times.get(rows)
        self._times[rows] = seconds if before is None else before + _WEIGHT * (seconds - before)

    def allows(self, rows: int) -> bool:
        """Whether `rows` together would still be given their frames in time. Where one alone is not, company does no
        harm: nobody can listen along anyway."""
        return self._most(rows) <= _SHARE * FRAME_S or self._times.get(1, 0.0) > FRAME_S

    def _most(self, rows: int) -> float:
        """What a step of so many may take: no longer than one of more rows, nor, by ratio, than one of fewer."""
        bounds = [seconds * max(1.0, rows / seen) for seen, seconds in self._times.items()]
        return min(bounds, default=0.0)
