"""`python -m loadtest faults`."""

import asyncio
from pathlib import Path
from typing import Unpack

import click

from loadtest.bench import plan, repeatable, requests_for
from loadtest.faults.hands import CommandHand, LocalHand
from loadtest.faults.report import HEADS, rows, write_report
from loadtest.faults.result import FaultResult
from loadtest.faults.run import Disturbances, run
from loadtest.faults.schedule import ACTIONS, KINDS, Action, Kind, schedule
from loadtest.options import OUT, URL, LoadOptions, StreamOptions, at, bench_of, stream_options
from loadtest.tables import markdown

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("faults")
@URL
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Replicas to strike; several in turn.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(ACTIONS), default=("kill",), show_default=True,
    help="Several in turn.",
)  # fmt: skip
@click.option("--every", "every_s", default=10.0, show_default=True, type=_POSITIVE, help="Seconds per fault.")
@click.option("--for", "for_s", default=180.0, show_default=True, type=_POSITIVE, help="Seconds of the disturbed part.")
@click.option("--lasts", "lasts_s", default=3.0, show_default=True, type=_POSITIVE, help="Seconds of stop and slow.")
@click.option(
    "--hand", "command", metavar="COMMAND",
    help="Shell command to run for each fault, with {kind} and {action}; without it, local processes get signals.",
)  # fmt: skip
@click.option("--raylet", type=int, help="Process id: only replicas that this raylet started are struck.")
@click.option("--leavers", default=0, show_default=True, type=click.IntRange(0), help="Clients that leave at random.")
@click.option("--slow-readers", default=0, show_default=True, type=click.IntRange(0), help="Clients that read slowly.")
@click.option("--slow-rate", default=1000, show_default=True, type=click.IntRange(1), help="Bytes a second they read.")
@click.option("--streams", default=4, show_default=True, type=click.IntRange(1), help="Measured streams at a time.")
@click.option(
    "--requests", default=16, show_default=True, type=click.IntRange(1), help="Different requests, repeated in turn."
)
@click.option(
    "--tolerance", "tolerance_steps", default=2, show_default=True, type=click.IntRange(0),
    help="Difference of a sample, in steps of 16 bits, that counts as equal.",
)  # fmt: skip
@OUT
@stream_options
def faults(
    url: str | None,
    kinds: tuple[Kind, ...],
    actions: tuple[Action, ...],
    every_s: float,
    for_s: float,
    lasts_s: float,
    command: str | None,
    raylet: int | None,
    leavers: int,
    slow_readers: int,
    slow_rate: int,
    streams: int,
    requests: int,
    tolerance_steps: int,
    out: Path,
    **options: Unpack[StreamOptions],
) -> None:
    """Compare streams under faults with undisturbed ones; write faults.json, faults.md and faults.png."""
    if not (kinds or leavers or slow_readers):
        raise click.UsageError("nothing disturbs the streams: give --kind, --leavers or --slow-readers")
    if kinds and lasts_s > every_s / 2:
        raise click.UsageError("--lasts may be at most half of --every, so that one fault ends before the next")
    hand = LocalHand(lasts_s, raylet) if command is None else CommandHand(command)
    planned = schedule(kinds, actions, every_s, for_s, options["seed"])
    disturbances = Disturbances(hand, planned, for_s, leavers, slow_readers, slow_rate)
    with at(url) as address:
        hand.check(kinds, actions)
        load = LoadOptions(**options, load="closed", requests=requests, processes=1)
        bench = bench_of(address, load, users=streams)
        with requests_for(bench) as make:
            speeches = repeatable(bench, [one.request for one in plan(bench, make, None, bench.seed)])
            result = asyncio.run(run(bench, speeches, disturbances, tolerance_steps))
            _write(result, out)


def _write(result: FaultResult, out: Path) -> None:
    """Write and print a result. Raises click.ClickException if all faults failed, so that it tells nothing."""
    result.write(out / "faults.json")
    write_report(result, out / "faults.md")
    click.echo(f"written to {out}/", err=True)
    click.echo(markdown(HEADS, rows(result)))
    if result.faults and not any(fault.happened for fault in result.faults):
        raise click.ClickException(f"no fault happened: {result.faults[0].what}")
