"""The load that replicas report, and the number of replicas that it needs.

Serve's controller receives this module by value, so it imports only the standard library.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

# More replicas are needed above the first share of the capacity, and fewer are enough below the second. Between them
# the number stays, so that replicas do not come and go with every request. The ingress refuses requests when the load
# is 70 to 85 % of the capacity, so the first share must be lower.
_FULL, _EASY = 0.6, 0.5
# A listener with less audio than this will soon hear silence. One frame lasts 80 ms.
_LEAST_HEADROOM_S = 0.08
# Reported by a replica without listeners. It stands for "enough".
_ENOUGH_S = 10.0
# A deployment with a stream in this time needs a replica, though none of its short streams was there at a report.
_RECENT_S = 10.0
_LONG_AGO_S = 3600.0


@dataclass(frozen=True)
class Load:
    """The load of one replica.

    `capacity` is the number of requests that the replica can serve in time. `headroom_s` is the least audio that a
    listener of its streams has in hand, or None without listeners. `idle_s` is the time since the latest stream.
    """

    capacity: int
    running: int
    waiting: int
    headroom_s: float | None = None
    idle_s: float = _LONG_AGO_S

    def stats(self) -> dict[str, float]:
        """Return the load in the form in which Serve collects it."""
        headroom_s = _ENOUGH_S if self.headroom_s is None else min(self.headroom_s, _ENOUGH_S)
        return {
            "capacity": self.capacity,
            "running": self.running,
            "waiting": self.waiting,
            "headroom_s": headroom_s,
            "idle_s": min(self.idle_s, _LONG_AGO_S),
        }


def load_of(stats: Mapping[str, float]) -> Load:
    """Return the load that `Load.stats` describes."""
    headroom_s = None if stats["headroom_s"] >= _ENOUGH_S else stats["headroom_s"]
    return Load(int(stats["capacity"]), int(stats["running"]), int(stats["waiting"]), headroom_s, stats["idle_s"])


def replicas_needed(context: "AutoscalingContext") -> tuple[int, dict[str, object]]:
    """Return the number of replicas that the reported load needs, and no state of the policy.

    Serve calls this for each deployment several times a second. It averages the reports over some seconds, and applies
    the delays and bounds of the settings to the result. It starts the first replica of a deployment without replicas
    by itself.
    """
    stats = context.aggregated_metrics or {}
    target = context.target_num_replicas
    capacities = stats.get("capacity", {})
    if not capacities:  # no replica runs, or none has reported yet
        return target, {}
    capacity = sum(capacities.values()) / len(capacities)
    # Replicas that have not reported yet count as idle.
    requests = sum(stats["running"].values()) + sum(stats["waiting"].values())
    most, fewest = (math.ceil(requests / (share * capacity)) for share in (_EASY, _FULL))
    needed = max(fewest, min(target, most))
    if min(stats["idle_s"].values()) < _RECENT_S:
        needed = max(needed, 1)
    # A single stream that is late is late because of the machine. Another replica would not help it.
    late = [one for one in capacities if stats["headroom_s"][one] < _LEAST_HEADROOM_S and stats["running"][one] > 1]
    if late:
        needed = max(needed, context.current_num_replicas + 1)
    return needed, {}
