"""`python -m loadtest timeline`."""

from pathlib import Path
from typing import Unpack

import click

from loadtest.bench import requests_for
from loadtest.options import OUT, PROCESSES, URL, LoadOptions, StreamOptions, at, bench_of, stream_options
from loadtest.tables import markdown
from loadtest.timeline.phases import arrivals_s, phases_of
from loadtest.timeline.report import compared_rows, phase_heads, phase_rows, window_heads, write_report
from loadtest.timeline.result import TimelineResult
from loadtest.timeline.run import run


@click.command("timeline")
@URL
@click.option(
    "--phase", "phases", multiple=True, required=True, metavar="RATE:SECONDS",
    help="Requests a second for a time; several, one after the other. A rate of 0 is a pause.",
)  # fmt: skip
@click.option(
    "--compare-window", "window_s", default=300.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="Seconds at the beginning and at the end that are compared; at most half of the phases.",
)  # fmt: skip
@PROCESSES
@OUT
@stream_options
def timeline(
    url: str | None,
    phases: tuple[str, ...],
    window_s: float,
    processes: int,
    out: Path,
    **options: Unpack[StreamOptions],
) -> None:
    """Send a load in phases and watch the service; write timeline.json, timeline.md and timeline.png."""
    planned = phases_of(phases)
    moments_s = arrivals_s(planned, options["seed"])
    if not moments_s:
        raise click.ClickException("no request arrives in these phases; give a longer --phase, or a higher rate")
    with at(url) as address:
        load = LoadOptions(**options, load="poisson", requests=len(moments_s), processes=processes)
        bench = bench_of(address, load)
        with requests_for(bench) as make:
            _write(run(bench, make, planned, moments_s, window_s), out)


def _write(result: TimelineResult, out: Path) -> None:
    result.write(out / "timeline.json")
    write_report(result, out / "timeline.md")
    click.echo(f"written to {out}/", err=True)
    click.echo(markdown(phase_heads(result), phase_rows(result)))
    click.echo(markdown(window_heads(result), compared_rows(result)))
