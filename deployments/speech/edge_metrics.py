"""What operators see of the admission at the edge: metrics, and the state of a line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deployments import metrics
from deployments.errors import loss_cause

# `wait`: the expected wait was too long. `expired`: the request waited as long as it may. `replica`: a replica's own
# queue was full.
Reason = Literal["wait", "expired", "replica"]


@dataclass(frozen=True)
class LineState:
    """The places of one model in one ingress replica. `limit` is None without a limit.

    `expected_wait_s` is that of a new interactive request. `refusals` are counted since the replica started.
    """

    limit: float | None
    in_use: int
    waiting: int
    expected_wait_s: float
    refusals: Mapping[Reason, int]


class EdgeMetrics:
    """Metrics of one ingress replica, by model."""

    def __init__(self) -> None:
        self._refused = metrics.EDGE_REFUSALS.make()
        self._waited = metrics.EDGE_WAIT.make()
        self._resumed = metrics.RESUMED.make()
        self._expected = metrics.EDGE_EXPECTED_WAIT.make()
        self._limit = metrics.EDGE_LIMIT.make()
        self._in_use = metrics.EDGE_IN_USE.make()

    def refused(self, model: str, reason: Reason) -> None:
        self._refused.inc(tags={"model": model, "reason": reason})

    def resumed(self, model: str, error: BaseException) -> None:
        """Note that a stream goes on elsewhere, because `error` has told that its codec decoder is lost."""
        self._resumed.inc(tags={"model": model, "cause": loss_cause(error)})

    def waited(self, model: str, priority: str, seconds: float) -> None:
        self._waited.observe(1000 * seconds, {"model": model, "priority": priority})

    def expected(self, model: str, seconds: float) -> None:
        self._expected.set(1000 * seconds, {"model": model})

    def places(self, model: str, limit: float, in_use: int) -> None:
        self._limit.set(0.0 if math.isinf(limit) else limit, {"model": model})
        self._in_use.set(in_use, {"model": model})
        if in_use + 1 <= limit:
            self.expected(model, 0.0)
