"""The arrival times of requests. In an open loop (poisson, bursty) callers arrive whether or not others are served.

In a closed loop a fixed number of users each send the next request when their last one has ended. Such a loop has no
arrival times. A server that stalls stops its own callers, so the requests that would have come meanwhile are never
measured (coordinated omission).
"""

import math
from typing import Literal, get_args

import numpy as np

OpenLoop = Literal["poisson", "bursty"]
Load = Literal["poisson", "bursty", "closed"]
OPEN_LOOPS: tuple[OpenLoop, ...] = get_args(OpenLoop)
LOADS: tuple[Load, ...] = get_args(Load)

# The average number of callers in a burst.
BURST = 5


def offsets_s(arrivals: OpenLoop, rate: float, count: int, seed: int) -> list[float]:
    """Return the arrival times of `count` requests in seconds from the start, `rate` a second on average.

    poisson: every caller arrives independently. bursty: bursts arrive independently; the callers of one burst arrive
    at the same moment, and their number has a geometric distribution with mean BURST.
    """
    assert rate > 0, f"at {rate} requests a second no request ever arrives"
    assert count >= 0, f"{count} requests cannot arrive"
    rng = np.random.default_rng(seed)
    if arrivals == "poisson":
        return [float(at) for at in np.cumsum(rng.exponential(1 / rate, count))]
    at, found = 0.0, list[float]()
    while len(found) < count:
        at += rng.exponential(BURST / rate)
        found += [at] * int(rng.geometric(1 / BURST))
    return found[:count]


def within_s(arrivals: OpenLoop, rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of all arrivals within `seconds`; their number is random. A rate of 0 has none."""
    if rate == 0:
        return []
    count = 2 * math.ceil(rate * seconds)
    while (found := offsets_s(arrivals, rate, count, seed))[-1] < seconds:
        count *= 2
    return [at for at in found if at < seconds]
