"""The table of the service's own Prometheus metrics, with the panel of the dashboard that shows each of them.

Replicas make their metrics from this table. The dashboard is rendered from it, and the table in docs/http.md is
checked against it. Serve adds the labels of deployment and replica to a metric that is made within a replica.
"""

from dataclasses import dataclass
from typing import Literal

from ray.serve import metrics

_MS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0, 10240.0)
_EDGE_MS = (5.0, 20.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0, 10240.0, 20480.0, 40960.0)
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.5, 2.0, 5.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_MODEL = ("model",)


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard. It shows every metric that names it. `unit` is Grafana's name of the unit."""

    title: str
    description: str
    unit: str = "short"


@dataclass(frozen=True)
class Metric:
    """A metric. Its `name` ends with its unit if it is a time or a size.

    The panel has a line for each value of the label `by`, or one line without it. `legend` tells apart the metrics of
    one panel.
    """

    name: str
    description: str
    panel: Panel
    labels: tuple[str, ...] = _MODEL
    by: str | None = "model"
    legend: str = ""

    def __post_init__(self) -> None:
        assert self.by is None or self.by in self.labels, f"{self.name} has no label {self.by}"

    @property
    def exported(self) -> str:
        """The name on the metrics port of a Ray node."""
        return f"ray_{self._own}"

    @property
    def _own(self) -> str:
        return f"qwen_tts_{self.name}"

    @property
    def _keys(self) -> tuple[str]:
        return self.labels  # type: ignore[return-value]  # Serve types them as one key


class Counter(Metric):
    """A number that only grows. The panel shows its growth per second."""

    @property
    def exported(self) -> str:
        return f"ray_{self._own}_total"

    def make(self) -> metrics.Counter:
        return metrics.Counter(self._own, self.description, self._keys)


@dataclass(frozen=True)
class Gauge(Metric):
    """A number that grows and shrinks. The panel shows all replicas together: the sum or the highest."""

    together: Literal["sum", "max"] = "sum"

    def make(self) -> metrics.Gauge:
        return metrics.Gauge(self._own, self.description, self._keys)


@dataclass(frozen=True)
class Histogram(Metric):
    """Observations, counted in buckets. The panel shows quantiles."""

    boundaries: tuple[float, ...] = _MS
    quantiles: tuple[float, ...] = (0.5, 0.95)

    def make(self) -> metrics.Histogram:
        return metrics.Histogram(self._own, self.description, list(self.boundaries), self._keys)


# Streams of audio, measured by the codec decoder. The ingress counts those that go on on another decoder.
TTFA = Histogram(
    "ttfa_ms",
    "Request received by the decoder until its first audio left.",
    Panel("Time to first audio", "Request at the decoder until its first audio left.", "ms"),
)
UNDERRUNS = Counter(
    "underruns",
    "Chunks that came after the audio had run out.",
    Panel("Underruns", "Chunks a second that came after the listener's audio had run out."),
)
UNDERRUN_SILENCE = Counter(
    "underrun_ms",
    "Silence that listeners heard because of underruns.",
    Panel("Silence heard", "Because of underruns, per second of time.", "ms"),
)
STREAMS = Counter(
    "streams",
    "Streams, by how they ended.",
    Panel("Streams ended", "By how they ended.", "reqps"),
    labels=(*_MODEL, "finish_reason"),
    by="finish_reason",
)
AUDIO = Counter(
    "audio_s",
    "Audio made.",
    Panel("Audio made", "Seconds of audio per second: streams that could be heard side by side."),
)
RTF = Histogram(
    "rtf",
    "Time of a stream divided by the duration of its audio.",
    Panel(
        "Real-time factor", "Time of a stream divided by the duration of its audio. Below 1 is faster than playback."
    ),
    boundaries=_RATIOS,
)
HEADROOM = Histogram(
    "headroom_ms",
    "Audio in a listener's hands when the next chunk leaves.",
    Panel("Headroom", "Audio in a listener's hands when the next chunk leaves.", "ms"),
    quantiles=(0.05, 0.5),
)
CHUNK_GAP = Histogram(
    "chunk_gap_ms", "Time between two chunks of one stream.", Panel("Between chunks", "Of one stream.", "ms")
)
RESUMED = Counter(
    "streams_resumed",
    "Streams that went on on another replica, by the loss of the one before.",
    Panel("Streams resumed", "Streams that went on on another replica, by the loss of the one before.", "reqps"),
    labels=(*_MODEL, "cause"),
    by="cause",
)

# The engine of a talker.
QUEUE_WAIT = Histogram(
    "queue_wait_ms", "Request queued until it had a slot.", Panel("Waiting for a slot", "Of a talker.", "ms")
)
STEP = Histogram(
    "step_ms",
    "One engine step: a frame for every row, rows of a prompt.",
    Panel("Engine step", "A frame for every row. 80 ms is real time.", "ms"),
)
STEP_ROWS = Histogram(
    "step_rows",
    "Sequences that got a frame in a step.",
    Panel("Rows of a step", "Sequences that got a frame."),
    boundaries=_ROWS,
)
_SLOTS = Panel("Slots and queue", "Of all talkers of a model.")
SLOTS_IN_USE = Gauge("slots_in_use", "Running sequences.", _SLOTS, legend="in use")
WAITING = Gauge("requests_waiting", "Requests waiting for a slot.", _SLOTS, legend="waiting")
PREFIXES_REUSED = Counter(
    "prefixes_reused",
    "Prompts whose beginning was known.",
    Panel("Prompts whose beginning was known", "Voices and instructions computed before.", "reqps"),
)
PREFIX_ROWS_REUSED = Counter(
    "prefix_rows_reused",
    "Rows of prompts that were not computed, because the beginning was known.",
    Panel("Rows not computed", "Rows of prompts whose beginning was known, per second."),
)

# The codec, which all models share.
_DECODER_SLOTS = Panel("Decoder slots and queue", "Of all codec decoders.")
DECODER_SLOTS_IN_USE = Gauge(
    "decoder_slots_in_use",
    "Streams that have a slot of the decoder.",
    _DECODER_SLOTS,
    labels=(),
    by=None,
    legend="in use",
)
DECODER_WAITING = Gauge(
    "decoder_requests_waiting",
    "Streams that wait for a slot of the decoder.",
    _DECODER_SLOTS,
    labels=(),
    by=None,
    legend="waiting",
)
ENCODER_BATCH = Histogram(
    "encoder_batch_size",
    "References encoded in one batch.",
    Panel("References of a batch", "Reference recordings that were encoded together."),
    labels=(),
    by=None,
    boundaries=_ROWS,
)

# The admission of an ingress replica.
EDGE_WAIT = Histogram(
    "edge_wait_ms",
    "Time for which an admitted request waited for its place.",
    Panel("Wait at the edge", "Time for which an admitted request waited for its place.", "ms"),
    labels=(*_MODEL, "priority"),
    by="priority",
    boundaries=_EDGE_MS,
)
EDGE_EXPECTED_WAIT = Gauge(
    "edge_expected_wait_ms",
    "Expected wait of the latest request that found no free place. 0 while a place is free.",
    Panel(
        "Expected wait at the edge",
        "Of the latest request that found no free place; 0 while a place is free. The longest of all.",
        "ms",
    ),
    together="max",
)
EDGE_REFUSALS = Counter(
    "edge_refusals",
    "Requests that were refused for lack of a place, by reason.",
    Panel("Refusals at the edge", "Requests that were refused for lack of a place, by reason.", "reqps"),
    labels=(*_MODEL, "reason"),
    by="reason",
)
_PLACES = Panel("Streams at the edge", "Streams that are being made, and their limit (0: no limit).")
EDGE_IN_USE = Gauge("edge_streams_in_use", "Streams that are being made.", _PLACES, legend="in use")
EDGE_LIMIT = Gauge("edge_stream_limit", "Streams at the same time; 0: no limit.", _PLACES, legend="limit")

# In the order of the definitions above.
METRICS = tuple(value for value in tuple(globals().values()) if isinstance(value, Metric))
