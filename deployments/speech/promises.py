"""The times at which refused requests were told to come back. They form a queue without connections."""

from bisect import bisect_left, insort

_MOST = 10_000
LONGEST_S = 600.0  # no promise is made for a later time
# A request that comes back within these times around the promised one goes before new requests. Clients round up, and
# some add a random time.
_EARLY_S = 0.5
_LATE_S = 15.0
# The time of a place varies. A line is shorter than its latest promise says only if it is shorter by this factor.
_SLACK = 2.0
_WEIGHT = 0.05  # of the newest promise in the share of those that came back


class Promises:
    """The promises of one model. All times are on the clock that `now` is read from."""

    def __init__(self) -> None:
        self._times: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes]] = []  # the same, sorted
        self._latest = 0.0  # the time of the newest promise
        self._returning = 1.0  # the share of refused requests that come back

    def __len__(self) -> int:
        return len(self._times)

    def returns(self, key: bytes, now: float) -> bool:
        """Return whether the request `key` was told to come about now. A promise holds for one request."""
        self._expire(now)
        when = self._times.get(key)
        if when is None or now < when - _EARLY_S:
            return False
        self.drop(key)
        self._count(came=True)
        return True

    def drop(self, key: bytes) -> None:
        """Forget the promise to a request, which may have none."""
        when = self._times.pop(key, None)
        if when is not None:
            index = bisect_left(self._order, (when, key))
            assert self._order[index] == (when, key), "a promise is not in the order"
            del self._order[index]

    def expected(self, now: float, until: float) -> float:
        """Return how many requests are likely to come back before `until`."""
        first, end = (bisect_left(self._order, (when, b"")) for when in (now - _EARLY_S, until))
        return self._returning * max(0, end - first)

    def promise(self, key: bytes, now: float, wait_s: float, each_s: float) -> float:
        """Return the seconds after which the request may come back, at least `wait_s`.

        Promises are `each_s` apart, times the share of requests that come back. A request that comes too early gets
        its own time again. Without room for a promise, the longest time is returned and nothing is kept.
        """
        self._expire(now)
        when = self._times.get(key)
        if when is None:
            each_s *= self._returning
            # After the latest promise. But if fewer requests came back than was expected, the line is shorter now.
            line_s = _SLACK * each_s * len(self._times)
            when = now + max(wait_s, min(self._latest + each_s - now, wait_s + line_s))
            if len(self._times) >= _MOST or when > now + LONGEST_S:
                return LONGEST_S
            self._times[key] = self._latest = when
            insort(self._order, (when, key))
        return max(0.0, when - now)

    def _expire(self, now: float) -> None:
        while self._order and self._order[0][0] + _LATE_S < now:
            self.drop(self._order[0][1])
            self._count(came=False)

    def _count(self, *, came: bool) -> None:
        self._returning = max(0.1, self._returning + _WEIGHT * (came - self._returning))
