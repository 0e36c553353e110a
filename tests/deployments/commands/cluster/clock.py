"""The clock of the commands that wait."""

import time
from collections.abc import Callable

_NAP_S = 0.01


class SettledClock:
    """It stands still while the cluster changes. However slow the machine, a cause that stands is one that stays.

    settled: which state the cluster has settled in, or None.
    """

    def __init__(self, settled: Callable[[], int | None]) -> None:
        self._settled = settled
        self._before: int | None = None
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, _: float) -> None:
        """A second passes if what was read since the last sleep is how the cluster has settled."""
        time.sleep(_NAP_S)
        now = self._settled()
        if now is not None and now == self._before:
            self._now_s += 1.0
        self._before = now
