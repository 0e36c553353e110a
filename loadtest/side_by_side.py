"""Our service and the peer of loadtest/peer in turn, on this machine, with the same weights, texts and limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import click
import yaml

from loadtest.bench import Bench, measure, requests_for, summed_up
from loadtest.options import OUT, LoadOptions, bench_of, load_options, promise_of
from loadtest.report import write_report
from loadtest.result import Result
from loadtest.searching import search
from loadtest.serving import ours, peer
from loadtest.tables import knee_said

_IDLE_REQUESTS = 30
_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("side-by-side")
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ttfa-ms", type=float, help="Limit of TTFA p95; default: --room times the TTFA p95 of the idle peer.")
@click.option("--room", default=2.0, show_default=True)
@click.option("--spoiled-percent", default=0.1, show_default=True)
@click.option(
    "--allow-underruns", is_flag=True, help="Limit only the TTFA, for models that are slower than real time here."
)
@click.option("--lowest", default=0.05, show_default=True, type=_POSITIVE)
@click.option("--our-lowest", type=_POSITIVE, help="First rate to try with our service; default: --lowest.")
@click.option("--highest", default=64.0, show_default=True)
@click.option("--tolerance", default=0.15, show_default=True, type=_POSITIVE)
@click.option(
    "--peer-requests", default=60, show_default=True, help="Requests of a trial of the peer, which is slower."
)
@click.option("--peer-python", default=".venv-reference/bin/python", type=click.Path(path_type=Path), show_default=True)
@click.option("--peer-dtype", default="bfloat16", show_default=True)
@click.option("--dtype", default="float32", show_default=True, help="Of our service.")
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True, help="Of our service.")
@click.option("--slots", default=16, show_default=True, help="Of our service.")
@click.option(
    "--name", default="side-by-side", show_default=True, help="The files in OUT are called NAME-ours and NAME-peer."
)
@OUT
@load_options
def side_by_side(
    checkpoint: Path,
    ttfa_ms: float | None,
    room: float,
    spoiled_percent: float,
    allow_underruns: bool,
    lowest: float,
    our_lowest: float | None,
    highest: float,
    tolerance: float,
    peer_requests: int,
    peer_python: Path,
    peer_dtype: str,
    dtype: str,
    compiled: bool,
    slots: int,
    name: str,
    out: Path,
    **options: Unpack[LoadOptions],
) -> None:
    """Find the knees of our service and of the peer at the same limit of TTFA.

    The peer answers with whole files, so its TTFA is its total time. The default limit is --room times the TTFA p95 of
    the idle peer: the peer can keep it, and there is time left for waiting.
    """
    share = None if allow_underruns else spoiled_percent
    with peer(peer_python, checkpoint, peer_dtype) as url:
        bench = replace(bench_of(url, options), requests=peer_requests)
        promise = promise_of(room * _idle_p95_ms(bench) if ttfa_ms is None else ttfa_ms, share)
        label = f"stand-in for a peer ({peer_dtype}), {checkpoint.name}"
        theirs = search(bench, promise, lowest, highest, tolerance, label)
    _write(theirs, out, f"{name}-peer")
    with _ours(checkpoint, dtype, compiled, slots) as url:
        label = f"ours ({dtype}{', compiled' if compiled else ''}), {checkpoint.name}"
        mine = search(bench_of(url, options), promise, our_lowest or lowest, highest, tolerance, label)
    _write(mine, out, f"{name}-ours")
    assert theirs.knee is not None, "the search on the peer has no knee"
    assert mine.knee is not None, "the search on our service has no knee"
    for result, knee in ((theirs, theirs.knee), (mine, mine.knee)):
        click.echo(f"{result.conditions.label}: {knee_said(knee)}")
    if theirs.knee.rate:
        click.echo(f"{mine.knee.rate / theirs.knee.rate:.1f} times the peer's rate")


def _idle_p95_ms(bench: Bench) -> float:
    """Measure the TTFA p95 of the idle peer, one request at a time. Raises click.ClickException if requests fail."""
    alone = replace(bench, load="closed", users=1, requests=min(_IDLE_REQUESTS, bench.requests))
    with requests_for(alone) as make:
        run = summed_up(alone, measure(alone, make, None, seed=alone.seed, description="peer, idle"))
    slowest = run.everything.heard_ms["p95"]
    if slowest is None:
        raise click.ClickException(f"the peer fails even when idle: {run.everything.errors}")
    return slowest


@contextmanager
def _ours(checkpoint: Path, dtype: str, compiled: bool, slots: int) -> Iterator[str]:
    settings = {
        "models": [{"name": "served", "checkpoint": str(checkpoint.resolve())}],
        "talker": {"dtype": dtype, "compile": compiled, "slots": slots, "max_waiting": 4 * slots},
    }
    with TemporaryDirectory() as directory:
        config = Path(directory) / "settings.yaml"
        config.write_text(yaml.safe_dump(settings))
        with ours(config) as url:
            yield url


def _write(result: Result, out: Path, name: str) -> None:
    result.write(out / f"{name}.json")
    write_report(result, out / f"{name}.html")
