"""The comparison of two result files of the same conditions: is the second one worse, beyond noise?

The medians of the runs are compared. The noise of a figure is its spread (highest minus lowest) over the repeated runs
of a file; the larger spread of the two files counts. The noise of a share is at least what chance does to that number
of streams. Differences below 2 % count as equal, whatever the noise.
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


# Lower is better for all of them.
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
    """The comparison of one figure. All values are in the unit of the figure."""

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
    """Return the difference of every figure. Raises click.ClickException if the files cannot be compared."""
    for name in ("scenario", "load", "rate", "users", "requests", "languages", "fields", "start_buffer_ms"):
        before, after = getattr(baseline.conditions, name), getattr(now.conditions, name)
        if before != after:
            raise click.ClickException(f"the conditions differ: {name} was {before}, and is {after} now")
    for name, result in (("baseline", baseline), ("new file", now)):
        if len(result.runs) < FEWEST_RUNS:
            message = f"the {name} has {len(result.runs)} runs, too few to know the noise; use --repeat {FEWEST_RUNS}"
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
    """Return the differences as a Markdown table."""
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
    return 0.0 if min(values) == max(values) else max(values) - min(values)  # all values may be infinite


def _chance(runs: list[Run], shares: list[float]) -> float:
    """Return three standard deviations of a share among the streams of one run.

    One stream is added to the median, so that a share of 0 has a deviation too.
    """
    requests = runs[0].everything.requests
    share = min(statistics.median(shares) + 1 / requests, 1.0)
    assert 0 < share <= 1, f"{share} is not a share of {requests} streams"
    return float(3 * (share * (1 - share) / requests) ** 0.5)
