"""The times at which refused requests were told to come back. They form a queue without connections."""

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field

_MOST = 10_000
_MOST_OF_CALLER = 100  # with a name
LONGEST_S = 600.0  # no promise is made for a later time
# A request that comes back within these times around the promised one goes before new requests. Clients round up, and
# some add a random time.
_EARLY_S = 0.5
_LATE_S = 15.0
# The time of a place varies. A line is shorter than its latest promise says only if it is shorter by this factor.
_SLACK = 2.0
_WEIGHT = 0.05  # of the newest promise in the share of those that came back


@dataclass(frozen=True, order=True)
class _Promise:
    when: float
    number: int  # of all promises
    key: bytes = field(compare=False)
    caller: str | None = field(compare=False)


class Promises:
    """The promises of one model. All times are on the clock that `now` is read from."""

    def __init__(self) -> None:
        self._order: list[_Promise] = []  # sorted
        self._of_key: dict[bytes, list[_Promise]] = {}  # sorted
        self._of_caller: Counter[str | None] = Counter()
        self._made = 0
        self._latest = 0.0  # the time of the newest promise
        self._returning = 1.0  # the share of refused requests that come back

    def __len__(self) -> int:
        return len(self._order)

    def returns(self, key: bytes, now: float) -> bool:
        """Return whether a request `key` was told to come about now. A promise holds for one request."""
        self._expire(now)
        promises = self._of_key.get(key)
        if not promises or now < promises[0].when - _EARLY_S:
            return False
        self._drop(promises[0])
        self._count(came=True)
        return True

    def expected(self, now: float, until: float) -> float:
        """Return how many requests are likely to come back before `until`."""
        first, end = (bisect_left(self._order, when, key=lambda one: one.when) for when in (now - _EARLY_S, until))
        return self._returning * max(0, end - first)

    def promise(self, key: bytes, caller: str | None, now: float, wait_s: float, each_s: float) -> float:
        """Return the seconds after which the request may come back, at least `wait_s`.

        Promises are `each_s` apart, times the share of requests that come back. A caller without a name may be several
        callers. If there is no room for one more promise, the time is returned, but not kept for the request.
        """
        self._expire(now)
        each_s *= self._returning
        # After the latest promise. But if fewer requests came back than was expected, the line is shorter now.
        line_s = _SLACK * each_s * len(self._order)
        when = now + max(wait_s, min(self._latest + each_s - now, wait_s + line_s))
        too_many = caller is not None and self._of_caller[caller] >= _MOST_OF_CALLER
        if too_many or len(self._order) >= _MOST or when > now + LONGEST_S:
            return min(when - now, LONGEST_S)
        self._made += 1
        self._latest = when
        promise = _Promise(when, self._made, key, caller)
        insort(self._order, promise)
        insort(self._of_key.setdefault(key, []), promise)
        self._of_caller[caller] += 1
        return when - now

    def _drop(self, promise: _Promise) -> None:
        index = bisect_left(self._order, promise)
        assert self._order[index] is promise, "a promise is not in the order"
        del self._order[index]
        self._of_key[promise.key].remove(promise)
        if not self._of_key[promise.key]:
            del self._of_key[promise.key]
        self._of_caller[promise.caller] -= 1
        assert self._of_caller[promise.caller] >= 0, "a caller got more promises back than it had"
        if not self._of_caller[promise.caller]:
            del self._of_caller[promise.caller]

    def _expire(self, now: float) -> None:
        while self._order and self._order[0].when + _LATE_S < now:
            self._drop(self._order[0])
            self._count(came=False)

    def _count(self, *, came: bool) -> None:
        self._returning = max(0.1, self._returning + _WEIGHT * (came - self._returning))
