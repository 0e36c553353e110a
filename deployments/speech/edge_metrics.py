"""Metrics of the admission at the edge."""

import math
from typing import Literal

from ray.serve import metrics

from deployments.errors import loss_cause

_WAITS_MS = [5.0, 20.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0, 10240.0, 20480.0, 40960.0]
_MODEL = ("model",)

# `wait`: the expected wait was too long. `expired`: the request waited as long as it may. `replica`: a replica's own
# queue was full.
Reason = Literal["wait", "expired", "replica"]


class EdgeMetrics:
    """Metrics of one ingress replica, by model."""

    def __init__(self) -> None:
        reasons, classes = (*_MODEL, "reason"), (*_MODEL, "priority")
        self._refused = metrics.Counter(
            "qwen_tts_edge_refusals",
            "Requests that were refused for lack of a place, by reason.",
            reasons,  # type: ignore[arg-type]  # typed as one key
        )
        self._waited = metrics.Histogram(
            "qwen_tts_edge_wait_ms",
            "Time for which an admitted request waited for its place.",
            _WAITS_MS,
            classes,  # type: ignore[arg-type]  # typed as one key
        )
        causes = (*_MODEL, "cause")
        self._resumed = metrics.Counter(
            "qwen_tts_streams_resumed",
            "Streams that went on on another replica, by the loss of the one before.",
            causes,  # type: ignore[arg-type]  # typed as one key
        )
        self._expected = metrics.Gauge(
            "qwen_tts_edge_expected_wait_ms", "Expected wait of the latest request that found no free place.", _MODEL
        )
        self._limit = metrics.Gauge("qwen_tts_edge_stream_limit", "Streams at the same time; 0: no limit.", _MODEL)
        self._in_use = metrics.Gauge("qwen_tts_edge_streams_in_use", "Streams that are being made.", _MODEL)

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
