"""What many requests come to. Percentiles are samples that occurred, of all requests together (nearest rank): nothing
is interpolated, and no percentile is ever an average of others. A request that failed never began to be heard: of the
latencies it is the longest there can be, so refusing callers makes no percentile better."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from loadtest.record import Record

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

# None: of so many requests at least, there was no answer.
Distribution = dict[str, float | None]
_BINS = 120


class SelfCheck(BaseModel):
    """Whether the generator kept up: by how many ms requests were sent late and the event loop woke up late, and the
    busiest process's share of a core. A run with `valid` false says nothing of the server."""

    model_config = ConfigDict(frozen=True)

    late_ms: Distribution
    lag_ms: Distribution
    cpu_share: float
    allowed_ms: float
    valid: bool


class Moment(BaseModel):
    """Of the requests scheduled in the `seconds` from `at_s` on; `under_way` at its beginning."""

    model_config = ConfigDict(frozen=True)

    at_s: float
    requests: int
    under_way: int
    failed: int
    underran: int
    heard_p95_ms: float | None


class Group(BaseModel):
    """Of some requests. `heard_ms` is the TTFA that limits are for: first audible sample played by a listener with the
    start buffer. `ttfa_ms` is its arrival, `first_byte_ms` the first byte's. `spoiled` requests failed or underran."""

    model_config = ConfigDict(frozen=True)

    requests: int
    errors: dict[str, int]
    finish_reasons: dict[str, int]
    underran: int
    underruns: int
    silence_ms: float
    audio_s: float
    received_bytes: int
    first_byte_ms: Distribution
    ttfa_ms: Distribution
    heard_ms: Distribution
    total_ms: Distribution
    gap_ms: Distribution
    rtf: Distribution

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def spoiled_share(self) -> float:
        return (self.failed + self.underran) / self.requests


class Run(BaseModel):
    """One run: of everything, and of each scenario that occurred. Rates are per second. `stolen_share` of the machine's
    processor time was not its own meanwhile (None: not known); with more, the figures say less of the server."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    offered_rate: float
    audio_s_per_s: float
    everything: Group
    by_scenario: dict[str, Group]
    timeline: list[Moment]
    self_check: SelfCheck
    stolen_share: float | None = None


def rank(quantile: float, count: int) -> int:
    """How many of `count` samples are not above the quantile: that of the highest one is the percentile."""
    return max(math.ceil(round(quantile * count, 6)), 1)  # 0.95 * 20 is 19, whatever floats say


def distribution(samples: Iterable[float], failed: int = 0) -> Distribution:
    """Of the samples, and of `failed` more that are longer than any."""
    ordered = sorted(samples) + [math.inf] * failed
    if not ordered:
        return {}
    found = {name: ordered[rank(quantile, len(ordered)) - 1] for name, quantile in QUANTILES.items()}
    return {name: round(value, 3) if math.isfinite(value) else None for name, value in found.items()}


def summarise(
    records: Sequence[Record],
    lags_ms: Sequence[float],
    cpu_share: float,
    allowed_ms: float,
    stolen_share: float | None = None,
) -> Run:
    """Of one run's records (at least one), of all processes and machines. `allowed_ms`: of lateness, at p99."""
    by_scenario = defaultdict(list)
    for record in records:
        by_scenario[record.scenario].append(record)
    seconds = max(record.end_s for record in records)
    scheduled = max(record.scheduled_s for record in records)
    late, lag = distribution(record.late_ms for record in records), distribution(lags_ms)
    valid = all((spread.get("p99") or 0.0) <= allowed_ms for spread in (late, lag))
    return Run(
        seconds=round(seconds, 3),
        offered_rate=round(len(records) / scheduled, 4) if scheduled else 0.0,
        audio_s_per_s=round(sum(record.audio_s for record in records) / seconds, 3),
        everything=_group(records),
        by_scenario={name: _group(group) for name, group in sorted(by_scenario.items())},
        timeline=_timeline(records, scheduled),
        self_check=SelfCheck(
            late_ms=late, lag_ms=lag, cpu_share=round(cpu_share, 3), allowed_ms=allowed_ms, valid=valid
        ),
        stolen_share=None if stolen_share is None else round(stolen_share, 4),
    )


def _group(records: Sequence[Record]) -> Group:
    good = [record for record in records if record.error is None]
    failed = len(records) - len(good)
    return Group(
        requests=len(records),
        errors=dict(Counter(record.error for record in records if record.error is not None)),
        finish_reasons=dict(Counter(record.finish_reason for record in good if record.finish_reason is not None)),
        underran=sum(record.underruns > 0 for record in good),
        underruns=sum(record.underruns for record in good),
        silence_ms=round(1000 * sum(record.silence_s for record in good), 1),
        audio_s=round(sum(record.audio_s for record in records), 3),
        received_bytes=sum(record.received_bytes for record in records),
        first_byte_ms=distribution((record.first_byte_ms for record in good), failed),
        ttfa_ms=distribution((record.ttfa_ms for record in good), failed),
        heard_ms=distribution((record.heard_ms for record in good), failed),
        total_ms=distribution((record.total_ms for record in good), failed),
        gap_ms=distribution(gap for record in good for gap in record.gaps_ms),
        rtf=distribution((record.rtf for record in good), failed),
    )


def _timeline(records: Sequence[Record], scheduled_s: float) -> list[Moment]:
    width = max(1.0, scheduled_s / _BINS)
    found = []
    for index in range(int(scheduled_s / width) + 1):
        begins = index * width
        here = [record for record in records if begins <= record.scheduled_s < begins + width]
        heard = distribution((record.heard_ms for record in here if record.error is None), sum(map(_failed, here)))
        found.append(
            Moment(
                at_s=round(begins, 3),
                requests=len(here),
                under_way=sum(record.sent_s <= begins < record.end_s for record in records),
                failed=sum(map(_failed, here)),
                underran=sum(record.underruns > 0 for record in here),
                heard_p95_ms=heard.get("p95"),
            )
        )
    return found


def _failed(record: Record) -> bool:
    return record.error is not None
