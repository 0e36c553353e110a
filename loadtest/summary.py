"""The summary of many requests.

A percentile is a sample that occurred, among all requests together (nearest rank). Nothing is interpolated, and no
percentile is an average of others. A failed request counts as a latency longer than any other, so a server cannot
improve a percentile by refusing callers.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from loadtest.record import Record

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

# By quantile. None: the requests at this quantile had no answer.
Distribution = dict[str, float | None]
_BINS = 120


class SelfCheck(BaseModel):
    """The check of whether the generator kept up. A run that is not `valid` tells nothing about the server.

    late_ms: how late requests were sent. lag_ms: how late event loops woke up. cpu_share: of the busiest process, of
    one core.
    """

    model_config = ConfigDict(frozen=True)

    late_ms: Distribution
    lag_ms: Distribution
    cpu_share: float
    allowed_ms: float
    valid: bool


class Moment(BaseModel):
    """One bin of the timeline: the requests that were due from `at_s` on. under_way: at the beginning of the bin."""

    model_config = ConfigDict(frozen=True)

    at_s: float
    requests: int
    under_way: int
    failed: int
    underran: int
    heard_p95_ms: float | None


class Group(BaseModel):
    """The figures of a group of requests.

    heard_ms: the TTFA that limits are for, until the player with the start buffer plays the first audible sample.
    ttfa_ms: until that sample arrives. first_byte_ms: until the first byte arrives. spoiled: failed or underran.
    """

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
    """The figures of one run, of all requests and of each scenario. Rates are per second.

    stolen_share: the share of processor time that other guests of the machine's host used (None: not known). The
    larger it is, the less the figures tell about the server.
    """

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
    """Return the rank of the percentile among `count` sorted samples, from 1 (nearest-rank method)."""
    assert 0 < quantile <= 1, f"{quantile} is not a quantile"
    assert count >= 1, "no samples have no percentile"
    return max(math.ceil(round(quantile * count, 6)), 1)  # rounded, so that 0.95 * 20 is 19 in spite of float errors


def distribution(samples: Iterable[float], failed: int = 0) -> Distribution:
    """Return the percentiles of the samples and of `failed` more, which count as longer than any sample."""
    assert failed >= 0, f"{failed} requests failed"
    ordered = sorted(samples) + [math.inf] * failed
    if not ordered:
        return {}
    found = {name: ordered[rank(quantile, len(ordered)) - 1] for name, quantile in QUANTILES.items()}
    return {name: round(value, 3) if math.isfinite(value) else None for name, value in found.items()}


def kept_up(allowed_ms: float, *lateness_ms: Distribution) -> bool:
    """Return whether each lateness of the generator is allowed. Otherwise its figures tell nothing about the server."""
    return all((spread.get("p99") or 0.0) <= allowed_ms for spread in lateness_ms)


def summarise(
    records: Sequence[Record],
    lags_ms: Sequence[float],
    cpu_share: float,
    allowed_ms: float,
    stolen_share: float | None = None,
) -> Run:
    """Return the summary of one run with at least one record, from all processes and machines.

    allowed_ms: the lateness of the generator that is allowed at p99.
    """
    assert records, "a run without a record has no summary"
    by_scenario = defaultdict(list)
    for record in records:
        by_scenario[record.scenario].append(record)
    seconds = max(record.end_s for record in records)
    scheduled = max(record.scheduled_s for record in records)
    late, lag = distribution(record.late_ms for record in records), distribution(lags_ms)
    return Run(
        seconds=round(seconds, 3),
        offered_rate=round(len(records) / scheduled, 4) if scheduled else 0.0,
        audio_s_per_s=round(sum(record.audio_s for record in records) / seconds, 3),
        everything=_group(records),
        by_scenario={name: _group(group) for name, group in sorted(by_scenario.items())},
        timeline=_timeline(records, scheduled),
        self_check=SelfCheck(
            late_ms=late,
            lag_ms=lag,
            cpu_share=round(cpu_share, 3),
            allowed_ms=allowed_ms,
            valid=kept_up(allowed_ms, late, lag),
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
    bins: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        bins[int(record.scheduled_s / width)].append(record)
    found = []
    for index in range(int(scheduled_s / width) + 1):
        begins, here = index * width, bins[index]
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
    assert sum(moment.requests for moment in found) == len(records), "a request is in no bin of the timeline"
    return found


def _failed(record: Record) -> bool:
    return record.error is not None
