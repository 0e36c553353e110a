"""Two result files of the same conditions: is the second worse, beyond what the same build differs from itself?

The noise of a figure is its spread (highest less lowest) over a file's repeated runs, the larger of the two files', and
of shares at least what chance does to so few streams. Medians of the runs are compared. Differences under 2 % are of no
interest whatever the noise.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click

from loadtest.result import Result
from loadtest.summary import Distribution, Run

FEWEST_RUNS = 3
_UNINTERESTING = 0.02


def _of(distribution: Callable[[Run], Distribution], quantile: str) -> Callable[[Run], float]:
    def figure(run: Run) -> float:
        value = distribution(run).get(quantile)
        return float("inf") if value is None else value

    return figure


# All of them are better when lower.
LATENCIES: Mapping[str, Callable[[Run], float]] = {
    "heard p50 ms": _of(lambda run: run.everything.heard_ms, "p50"),
    "heard p95 ms": _of(lambda run: run.everything.heard_ms, "p95"),
    "first byte p50 ms": _of(lambda run: run.everything.first_byte_ms, "p50"),
    "gap p50 ms": _of(lambda run: run.everything.gap_ms, "p50"),
    "gap p95 ms": _of(lambda run: run.everything.gap_ms, "p95"),
    "RTF p50": _of(lambda run: run.everything.rtf, "p50"),
    "RTF p95": _of(lambda run: run.everything.rtf, "p95"),
}
SHARES: Mapping[str, Callable[[Run], float]] = {
    "underran": lambda run: run.everything.underran / run.everything.requests,
    "failed": lambda run: run.everything.failed / run.everything.requests,
}


@dataclass(frozen=True)
class Difference:
    """`noise` in the figure's own unit."""

    figure: str
    baseline: float
    now: float
    noise: float

    @property
    def regressed(self) -> bool:
        return self.now - self.baseline > max(self.noise, _UNINTERESTING * self.baseline)

    @property
    def improved(self) -> bool:
        return self.baseline - self.now > max(self.noise, _UNINTERESTING * self.baseline)


def compare(baseline: Result, now: Result) -> list[Difference]:
    """Raises click.ClickException where the files cannot be compared."""
    for name in ("scenario", "load", "rate", "users", "requests", "languages", "fields", "start_buffer_ms"):
        before, after = getattr(baseline.conditions, name), getattr(now.conditions, name)
        if before != after:
            raise click.ClickException(f"not the same conditions: {name} was {before}, and is {after} now")
    for name, result in (("baseline", baseline), ("new file", now)):
        if len(result.runs) < FEWEST_RUNS:
            message = f"the {name} has {len(result.runs)} runs, whose spread says nothing; use --repeat {FEWEST_RUNS}"
            raise click.ClickException(f"{message} or more")
        if not all(run.self_check.valid for run in result.runs):
            raise click.ClickException(f"the {name} has runs whose generator did not keep up")
    found = []
    for name, figure in {**LATENCIES, **SHARES}.items():
        old, new = [figure(run) for run in baseline.runs], [figure(run) for run in now.runs]
        noise = max(_spread(old), _spread(new))
        if name in SHARES:
            noise = max(noise, _chance(baseline.runs, old), _chance(now.runs, new))
        found.append(Difference(name, statistics.median(old), statistics.median(new), noise))
    return found


def table(differences: list[Difference]) -> str:
    """Markdown."""
    rows = ["| | baseline | now | difference | noise | |", "|---|---|---|---|---|---|"]
    for found in differences:
        verdict = "worse" if found.regressed else "better" if found.improved else "within noise"
        difference = found.now - found.baseline
        rows.append(
            f"| {found.figure} | {found.baseline:.4g} | {found.now:.4g} | {difference:+.4g} | {found.noise:.4g} "
            f"| {verdict} |"
        )
    return "\n".join(rows)


def _spread(values: list[float]) -> float:
    return 0.0 if min(values) == max(values) else max(values) - min(values)  # all of them may be infinite


def _chance(runs: list[Run], shares: list[float]) -> float:
    """Three standard deviations of a share among one run's streams, were one stream more concerned."""
    requests = runs[0].everything.requests
    share = min(statistics.median(shares) + 1 / requests, 1.0)
    return float(3 * (share * (1 - share) / requests) ** 0.5)
