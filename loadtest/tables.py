"""Results as rows of text, for the terminal, the report, the README and the CSV file."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from loadtest.knee import Knee
from loadtest.record import Record
from loadtest.summary import Distribution, Group, Run, kept_up
from loadtest.tries import Counts

Row = list[str]

GROUP_HEADS = [
    "", "requests", "failed", "underran", "TTFA heard ms, p50 / p95 / p99", "arrived, p50 / p95",
    "first byte, p50 / p95", "gap ms, p50 / p99", "RTF, p50 / p95", "total ms, p50 / p95",
]  # fmt: skip
TRIAL_HEADS = ["requests a second", "requests", "late", "spoiled", "TTFA heard ms, p50 / p95", "x real time", "promise"]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    assert all(len(line) == len(heads) for line in lines), f"a row has not {len(heads)} cells: {lines}"
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def group_rows(run: Run) -> list[Row]:
    """Return a row per scenario, after a row of all requests if there are several scenarios."""
    groups = dict(run.by_scenario)
    if len(groups) > 1:
        groups = {"all": run.everything, **groups}
    return [_group_row(name, group) for name, group in groups.items()]


def _group_row(name: str, group: Group) -> Row:
    return [
        name,
        str(group.requests),
        by_kind(group.errors),
        f"{group.underran} ({group.silence_ms:.0f} ms)" if group.underran else "0",
        quantiles(group.heard_ms, "p50", "p95", "p99"),
        quantiles(group.ttfa_ms, "p50", "p95"),
        quantiles(group.first_byte_ms, "p50", "p95"),
        quantiles(group.gap_ms, "p50", "p99"),
        quantiles(group.rtf, "p50", "p95", digits=2),
        quantiles(group.total_ms, "p50", "p95"),
    ]


def try_rows(columns: Sequence[Counts]) -> list[Row]:
    """Return a row per figure of tries, with a cell for each of `columns`."""
    figures: list[tuple[str, Callable[[Counts], str]]] = [
        ("tries", lambda counts: str(counts.tries)),
        ("admitted", _admitted),
        ("refused at once (429)", lambda counts: str(counts.refused_at_once)),
        ("refused after waiting (429)", lambda counts: str(counts.refused_later)),
        ("refused without Retry-After", lambda counts: str(counts.untimed)),
        ("not ready (503)", lambda counts: by_kind(counts.not_ready)),
        ("other errors", lambda counts: by_kind(counts.errors)),
        ("time until the refusal ms, p50 / p95 / p99", lambda one: quantiles(one.refusal_ms, "p50", "p95", "p99")),
        ("Retry-After s, p50 / max", lambda counts: quantiles(counts.retry_after_s, "p50", "max")),
        (
            "first audio ms, p50 / p95 / p99 / max",
            lambda one: quantiles(one.first_audio_ms, "p50", "p95", "p99", "max"),
        ),
        ("streams that underran (underruns)", lambda counts: f"{counts.underran} ({counts.underruns})"),
        ("worst silence ms", lambda counts: f"{counts.worst_silence_ms:.0f}"),
    ]
    return [[name, *map(figure, columns)] for name, figure in figures]


def _admitted(counts: Counts) -> str:
    return f"{counts.admitted} ({counts.admitted / counts.tries:.0%})" if counts.tries else "0"


def trial_rows(knee: Knee) -> list[Row]:
    """Return a row per trial, in the order of the rates."""
    rows = []
    for trial in sorted(knee.trials, key=lambda trial: trial.rate):
        seen = trial.run.everything
        rows.append(
            [
                f"{trial.rate:.3g}",
                f"{seen.requests} of {trial.requests}" if trial.stopped else str(trial.requests),
                str(trial.late),
                str(trial.spoiled),
                quantiles(seen.heard_ms, "p50", "p95"),
                f"{trial.run.audio_s_per_s:.1f}",
                "kept" if trial.kept else "broken",
            ]
        )
    return rows


def knee_said(knee: Knee) -> str:
    """Return the result of a search in one sentence."""
    promise = f"TTFA p95 within {knee.promise.heard_p95_ms:.0f} ms"
    if knee.promise.spoiled_share is not None:
        promise += f", at most {knee.promise.spoiled_share:.2%} of the streams spoiled"
    if knee.generators:
        promise = f"NOT the server's knee, the generator did not keep up at {knee.broken_at:.3g} a second. {promise}"
    if not knee.rate:
        return f"{promise}: not kept at {knee.broken_at:.3g} requests a second, the lowest rate that was tried"
    beyond = "the highest rate that was tried" if knee.broken_at is None else f"broken at {knee.broken_at:.3g}"
    return f"{promise}: kept up to {knee.rate:.3g} requests a second ({beyond})"


def by_kind(counts: Mapping[str, int]) -> str:
    """Return the sum of the counts, and each of them if there are any."""
    said = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({said})" if said else "0"


def quantiles(distribution: Distribution, *names: str, digits: int = 0) -> str:
    """Return the named quantiles, separated by slashes. `-` stands for no answer."""
    values = [distribution.get(name) for name in names]
    return " / ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def lateness(late_ms: Distribution, lag_ms: Distribution, allowed_ms: float) -> str:
    """Return how late the callers of an open loop were, and whether their figures tell nothing for that reason."""
    in_time = kept_up(allowed_ms, late_ms, lag_ms)
    late = "" if in_time else ": the callers did NOT keep up, so latencies and silences tell nothing"
    return (
        f"tries were sent {quantiles(late_ms, 'p99', 'max')} ms late, and the event loop of the callers woke up "
        f"{quantiles(lag_ms, 'p99', 'max')} ms late (p99 / max); {allowed_ms:g} ms are allowed at p99{late}"
    )


def write_csv(runs: Sequence[Sequence[Record]], file: Path) -> None:
    """Write a line per request of every run. Latencies of failed requests are empty."""
    latencies = ("first_byte_ms", "ttfa_ms", "heard_ms", "total_ms", "rtf")
    plain = (
        "index", "scenario", "language", "characters", "scheduled_s", "sent_s", "end_s", "audio_s", "underruns",
        "silence_s", "finish_reason", "error",
    )  # fmt: skip
    with file.open("w", encoding="utf-8", newline="") as opened:
        lines = csv.writer(opened)
        lines.writerow(["run", *plain, "late_ms", *latencies, "longest_gap_ms", "chunks", "bytes"])
        for number, records in enumerate(runs):
            for record in records:
                good = record.error is None
                measured = [round(getattr(record, name), 3) if good else None for name in latencies]
                longest = round(max(record.gaps_ms), 3) if record.gaps_ms else None
                counts = [len(record.chunks), record.received_bytes]
                first = [getattr(record, name) for name in plain]
                lines.writerow([number, *first, round(record.late_ms, 3), *measured, longest, *counts])
