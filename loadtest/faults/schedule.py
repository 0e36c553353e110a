"""The faults of a run: their moments, the replicas they strike, and what happens to these replicas."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

# The deployments of the service. A talker's name ends with the name of its model.
Kind = Literal["talker", "codec-decoder", "codec-encoder", "ingress"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# kill: the process ends at once. stop: it halts for a while. slow: it runs a fifth of the time for a while. drain: it
# ends when its streams have ended.
Action = Literal["kill", "stop", "slow", "drain"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Fault:
    """A fault that is due `at_s` seconds after the start.

    share: chooses one of the replicas of the kind: 0 is the first, just under 1 is the last.
    """

    at_s: float
    kind: Kind
    action: Action
    share: float


def schedule(kinds: Sequence[Kind], actions: Sequence[Action], every_s: float, for_s: float, seed: int) -> list[Fault]:
    """Return one fault in each `every_s` seconds of `for_s`: every action on every kind in turn.

    A fault comes at a random moment in the middle half of its interval. So faults strike streams at any age, and the
    service has at least `every_s` / 2 between two of them.
    """
    rng = np.random.default_rng([seed, 2])
    turns = list(product(actions, kinds))
    faults = []
    for number in range(int(for_s / every_s) if turns else 0):
        action, kind = turns[number % len(turns)]
        at = every_s * (number + 0.25 + rng.random() / 2)
        faults.append(Fault(float(at), kind, action, float(rng.random())))
    return faults
