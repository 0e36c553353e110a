"""When requests come. In an open loop (poisson, bursty) no caller waits until others are served.

In a closed loop so many users each send their next request when the last one ended. It has no arrivals: a server that
stalls stops its own callers, so the requests that would have come meanwhile are never measured (coordinated omission).
"""

from typing import Literal, get_args

import numpy as np

OpenLoop = Literal["poisson", "bursty"]
Load = Literal["poisson", "bursty", "closed"]
OPEN_LOOPS: tuple[OpenLoop, ...] = get_args(OpenLoop)
LOADS: tuple[Load, ...] = get_args(Load)

# Callers of a burst, on average.
BURST = 5


def offsets_s(arrivals: OpenLoop, rate: float, count: int, seed: int) -> list[float]:
    """Seconds from the start until each of `count` requests, `rate` a second on average.

    poisson: independent callers. bursty: bursts of independent callers' friends, 1 to many (geometric, BURST on
    average) at the same moment.
    """
    rng = np.random.default_rng(seed)
    if arrivals == "poisson":
        return [float(at) for at in np.cumsum(rng.exponential(1 / rate, count))]
    at, found = 0.0, list[float]()
    while len(found) < count:
        at += rng.exponential(BURST / rate)
        found += [at] * int(rng.geometric(1 / BURST))
    return found[:count]
