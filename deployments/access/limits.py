"""The limits of each API key: requests at the same time, and requests per minute."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.access.caller import Caller
from qwen_tts.errors import Overloaded

_MINUTE_S = 60.0


class CallerLimits:
    """The counts of one ingress replica, by key. N replicas together admit up to N times a limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, and the time of that count

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """Count a request of `caller` as under way within the context. Raises Overloaded at a limit."""
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
        """Count one request towards the limit per minute. Raises Overloaded. One connection may send several requests.

        The bucket holds the requests of one minute and fills steadily, so a burst is allowed after a pause.
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
