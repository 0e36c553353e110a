"""`python -m loadtest overload`."""

import asyncio
from pathlib import Path
from typing import Unpack

import click

from loadtest.bench import requests_for
from loadtest.options import OUT, URL, LoadOptions, StreamOptions, at, bench_of, stream_options
from loadtest.overload.report import HEADS, rows, write_report
from loadtest.overload.result import OverloadResult
from loadtest.overload.run import Aftermath, arrivals, run
from loadtest.tables import markdown

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("overload")
@URL
@click.option("--rate", required=True, type=_POSITIVE, help="Requests a second, far above what the server can make.")
@click.option("--for", "for_s", default=60.0, show_default=True, type=_POSITIVE, help="Seconds of arrivals.")
@click.option(
    "--second-try-within", "second_try_within_s", default=600.0, show_default=True, type=click.FloatRange(0),
    help="Seconds after the last arrival in which refused requests are still sent again.",
)  # fmt: skip
@click.option(
    "--recovery-after", "recovery_after_s", default=5.0, show_default=True, type=click.FloatRange(0),
    help="Seconds between the last answer and the requests that show the speed after the overload.",
)  # fmt: skip
@OUT
@stream_options
def overload(
    url: str | None,
    rate: float,
    for_s: float,
    second_try_within_s: float,
    recovery_after_s: float,
    out: Path,
    **options: Unpack[StreamOptions],
) -> None:
    """Send far too many requests, and refused ones once more; write overload.json, overload.md and overload.png."""
    with at(url) as address:
        load = LoadOptions(**options, load="poisson", requests=max(round(rate * for_s), 1), processes=1)
        bench = bench_of(address, load)
        with requests_for(bench) as make:
            planned = arrivals(bench, make, rate)
            result = asyncio.run(run(bench, planned, rate, Aftermath(second_try_within_s, recovery_after_s)))
            _write(result, out)


def _write(result: OverloadResult, out: Path) -> None:
    """Write and print a result. Raises click.ClickException if nothing was refused, so that it tells nothing."""
    result.write(out / "overload.json")
    write_report(result, out / "overload.md")
    click.echo(f"written to {out}/", err=True)
    click.echo(markdown(HEADS, rows(result)))
    if not result.first.refused:
        raise click.ClickException("the server refused nothing, so this was no overload; give a higher --rate")
