"""The tables of README.md and docs/benchmarks.md, written from the result files in docs/benchmarks and nothing else."""

import json
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

import click

from loadtest.knee import kept_at
from loadtest.result import Result, read_result
from loadtest.scenarios import SCENARIOS
from loadtest.tables import knee_said, markdown, quantiles

BEGIN = "<!-- Written by `python -m loadtest readme` from docs/benchmarks; change nothing here. -->"
END = "<!-- Until here. -->"
# With fewer requests the 95th percentile is the slowest request.
_FEWEST_FOR_P95 = 20
# Lower limits than that of a comparison. The same trials show which server would have kept them.
_LIMITS_MS = (500.0, 1000.0, 2000.0, 3000.0)
_HEADS = [
    "scenario", "a second", "requests", "TTFA heard ms, p50 / p95", "arrived, p50 / p95", "RTF, p50 / p95", "underran",
    "failed",
]  # fmt: skip


def rewritten(page: str, text: str, directory: Path) -> str:
    """Return the `text` of `page` with the section between its marks written anew. Raises click.ClickException."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise click.ClickException(f"{page} has no section between {BEGIN} and {END}")
    tables = [table(directory) for table in PAGES[page]]
    section = "\n\n".join(table for table in tables if table)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def _engine(directory: Path) -> str:
    """Return the table of `python -m benchmarks`: every precision beside the reference."""
    file = directory / "engine-0.6B.json"
    if not file.exists():
        return ""
    measured = json.loads(file.read_text(encoding="utf-8"))
    batches = sorted({one["batch"] for one in measured})
    rows = [
        [name, *(f"{one['ms_per_frame']:.0f}" for one in group)]
        for name, group in groupby(measured, key=lambda one: one["name"])
    ]
    heads = ["ms per frame of 80 ms", *(f"{batch} stream{'s' * (batch > 1)}" for batch in batches)]
    return f"The engine alone at the 0.6B shape ([how](docs/benchmarks.md#the-engine)):\n\n{markdown(heads, rows)}"


def _scenarios(directory: Path) -> str:
    files = [directory / f"scenario-{name}.json" for name in SCENARIOS]
    results = [read_result(file) for file in files if file.exists()]
    if not results:
        return ""
    return f"Embedded models through the service, {_where(results)}:\n\n{markdown(_HEADS, map(_row, results))}"


def _row(result: Result) -> list[str]:
    seen = result.runs[0].everything
    names = ("p50", "p95") if seen.requests >= _FEWEST_FOR_P95 else ("p50",)
    return [
        f"[{result.conditions.scenario}](benchmarks/scenario-{result.conditions.scenario}.html)",
        f"{result.conditions.rate:g}",
        str(seen.requests),
        quantiles(seen.heard_ms, *names),
        quantiles(seen.ttfa_ms, *names),
        quantiles(seen.rtf, *names, digits=2),
        str(seen.underran),
        str(seen.failed),
    ]


def _knees(directory: Path) -> str:
    lines = []
    for file in sorted(directory.glob("knee-*.json")):
        result = read_result(file)
        assert result.knee is not None
        page = f"benchmarks/{file.with_suffix('.html').name}"
        lines.append(f"- [{result.conditions.label}]({page}): {knee_said(result.knee)}.")
    return "Knees:\n\n" + "\n".join(lines) if lines else ""


def _peers(directory: Path) -> str:
    rows = []
    for file in sorted(directory.glob("*-peer.json")):
        name = file.stem.removesuffix("-peer")
        theirs, mine = read_result(file).knee, read_result(directory / f"{name}-ours.json").knee
        assert theirs is not None
        assert mine is not None
        share = theirs.promise.spoiled_share
        spoiled = "underruns not counted" if share is None else f"at most {share:.1%} of the streams spoiled"
        limits = [limit for limit in _LIMITS_MS if limit < theirs.promise.heard_p95_ms]
        for limit in (*limits, theirs.promise.heard_p95_ms):
            (their_rate, their_end), (our_rate, our_end) = kept_at(theirs, limit), kept_at(mine, limit)
            times = ""
            if their_rate:
                times = f"{our_rate / their_rate:.1f}"
            elif their_end and our_rate:
                times = f"over {our_rate / their_end:.1f}"
            if times:  # one of the two servers kept the limit at some rate
                rates = [_between(their_rate, their_end), _between(our_rate, our_end)]
                rows.append([name, f"{limit / 1000:.2g} s, {spoiled}", *rates, times])
    if not rows:
        return ""
    heads = [
        "weights",
        "limit of TTFA p95",
        "peer: highest rate kept (lowest rate broken), 1/s",
        "this service",
        "ratio",
    ]
    words = (
        "This service and a stand-in for the FastAPI wrappers of PyPI's qwen-tts, in turn on one machine, with the "
        "same weights. Rates are requests a second"
    )
    return f"{words}:\n\n{markdown(heads, rows)}"


def _between(kept: float, broken: float | None) -> str:
    return f"{kept:.2g} (-)" if broken is None else f"{kept:.2g} ({broken:.2g})" if kept else f"- ({broken:.2g})"


def _where(results: list[Result]) -> str:
    machines = list(dict.fromkeys(result.conditions.machine for result in results))
    dates = sorted(result.conditions.date for result in results)
    busy = max(result.conditions.load_average for result in results)
    quiet = f"load average before each run up to {busy:.1f}"
    stolen = [run.stolen_share for result in results for run in result.runs if run.stolen_share is not None]
    if stolen:
        quiet += f", up to {max(stolen):.0%} of the processors taken by other guests of the host"
    return f"{' and '.join(machines)}, {dates[-1]}; {quiet}"


# The pages that have such a section, and the tables in it.
PAGES: Mapping[str, tuple[Callable[[Path], str], ...]] = {
    "README.md": (_engine,),
    "docs/benchmarks.md": (_scenarios, _knees, _peers),
}
