"""How much each API key may ask: requests under way, and requests a minute."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.access.caller import Caller
from qwen_tts.errors import Overloaded

_MINUTE_S = 60.0


class CallerLimits:
    """What one ingress replica counts, by key. N replicas let through up to N times as much."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, as of when

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """A request of `caller`, under way within. Raises Overloaded."""
        name = caller.name
        if name is None:
            yield
            return
        if caller.max_concurrent is not None and self._under_way[name] >= caller.max_concurrent:
            raise Overloaded(f"{caller.max_concurrent} requests of this API key are under way, which is its limit")
        self.count(caller)
        self._under_way[name] += 1
        try:
            yield
        finally:
            self._under_way[name] -= 1
            assert self._under_way[name] >= 0, "a request ended twice"

    def count(self, caller: Caller) -> None:
        """One request more this minute, perhaps of several in one connection. Raises Overloaded.

        A bucket that holds a minute's requests and fills steadily: a pause may be made up for by a burst.
        """
        most = caller.requests_per_minute
        if caller.name is None or most is None:
            return
        now = self._clock()
        left, since = self._buckets.get(caller.name, (float(most), now))
        left = min(most, left + (now - since) * most / _MINUTE_S)
        if left < 1:
            wait_s = (1 - left) * _MINUTE_S / most
            raise Overloaded(f"this API key may send {most} requests a minute", wait_s)
        self._buckets[caller.name] = (left - 1, now)
