"""`python -m loadtest`: load tests for any server with OpenAI's speech route."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import click

from loadtest.arrivals import OPEN_LOOPS
from loadtest.bench import invalid, measure, requests_for, summed_up
from loadtest.compare import compare, table
from loadtest.faults.command import faults
from loadtest.kept_audio import write_audio
from loadtest.merge import Samples, merge, read_samples, write_samples
from loadtest.options import OUT, URL, LoadOptions, at, bench_of, load_options, promise_of
from loadtest.overload.command import overload
from loadtest.readme import PAGES, rewritten
from loadtest.record import Record
from loadtest.report import write_report
from loadtest.result import Result, conditions_of, read_result
from loadtest.searching import search
from loadtest.serving import peer
from loadtest.side_by_side import side_by_side
from loadtest.tables import GROUP_HEADS, TRIAL_HEADS, group_rows, knee_said, markdown, trial_rows, write_csv
from loadtest.timeline.command import timeline

_RESULT = click.Path(exists=True, dir_okay=False, path_type=Path)
_POSITIVE = click.FloatRange(0, min_open=True)
_TTFA = (
    "Limit of the TTFA's 95th percentile, from the moment a request is due until its first audible sample is played."
)
_SPOILED = click.option(
    "--spoiled-percent", default=0.1, show_default=True, help="Highest share of streams that underrun or fail."
)


@click.group(help=__doc__)
def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit by exception also ends the servers started here


@main.command()
@URL
@click.option("--rate", type=_POSITIVE, help="Requests a second in an open loop.")
@click.option("--users", type=click.IntRange(1), help="Number of users in a closed loop.")
@click.option(
    "--repeat", default=1, show_default=True, type=click.IntRange(1), help="Number of runs; their spread is the noise."
)
@click.option("--shard", default="0/1", show_default=True, help="i/n: this machine sends shard i of n, from 0.")
@click.option(
    "--start-at", type=float, help="Start time, the same epoch second on every machine: date -d '+30 sec' +%s"
)
@click.option(
    "--keep", default=0, show_default=True, help="Keep the audio of this many requests, for `qwen-tts evaluate`."
)
@click.option("--baseline", type=_RESULT, help="Fail on a regression against this result.")
@click.option("--label", help="Title of the report.")
@OUT
@load_options
def run(
    url: str | None,
    rate: float | None,
    users: int | None,
    repeat: int,
    shard: str,
    start_at: float | None,
    keep: int,
    baseline: Path | None,
    label: str | None,
    out: Path,
    **options: Unpack[LoadOptions],
) -> None:
    """Measure one load; write result.json, requests.csv, samples.json and report.html."""
    wanted, other = ("rate", "users") if options["load"] in OPEN_LOOPS else ("users", "rate")
    given = {"rate": rate, "users": users}
    if given[wanted] is None or given[other] is not None:
        raise click.UsageError(f"--load {options['load']} needs --{wanted} and does not accept --{other}")
    if repeat > 1 and _shard(shard) != (0, 1):
        raise click.UsageError("--shard does not accept --repeat: shards are merged one run at a time")
    with at(url) as address:
        bench = replace(bench_of(address, options, users), shard=_shard(shard), start_at=start_at, keep=keep)
        conditions = conditions_of(bench, label or f"{bench.scenario}, {bench.load}", rate)
        with requests_for(bench) as make:
            generated = [
                measure(bench, make, rate, seed=bench.seed + number, description=f"run {number + 1} of {repeat}")
                for number in range(repeat)
            ]
    result = Result(conditions=conditions, runs=[summed_up(bench, one) for one in generated])
    _write(result, [one.records for one in generated], out)
    if repeat == 1:
        lags = [lag for effort in generated[0].efforts for lag in effort.lags_ms]
        cpu = max(effort.cpu_share for effort in generated[0].efforts)
        samples = Samples(conditions=conditions, records=generated[0].records, lags_ms=lags, cpu_share=cpu)
        write_samples(samples, out / "samples.json")
    if keep:
        write_audio(generated[-1].records, out / "audio")
    _print_result(result)
    if baseline is not None:
        _compare(baseline, result)


@main.command()
@URL
@click.option("--ttfa-ms", default=500.0, show_default=True, help=_TTFA)
@_SPOILED
@click.option("--lowest", default=0.25, show_default=True, type=_POSITIVE, help="First rate to try, requests a second.")
@click.option("--highest", default=64.0, show_default=True, help="Highest rate to try.")
@click.option(
    "--tolerance",
    default=0.15,
    show_default=True,
    type=_POSITIVE,
    help="The search ends when the lowest broken rate exceeds the highest kept rate by at most this share.",
)
@click.option("--label", help="Title of the report.")
@OUT
@load_options
def knee(
    url: str | None,
    ttfa_ms: float,
    spoiled_percent: float,
    lowest: float,
    highest: float,
    tolerance: float,
    label: str | None,
    out: Path,
    **options: Unpack[LoadOptions],
) -> None:
    """Find the highest rate at which TTFA and underruns keep their limits; write result.json and report.html."""
    with at(url) as address:
        bench = bench_of(address, options)
        promise = promise_of(ttfa_ms, spoiled_percent)
        result = search(bench, promise, lowest, highest, tolerance, label or f"knee of {bench.scenario}")
    _write(result, [], out)
    _print_result(result)


@main.command("compare")
@click.argument("baseline", type=_RESULT)
@click.argument("now", type=_RESULT)
def compare_files(baseline: Path, now: Path) -> None:
    """Compare NOW with BASELINE; the exit code is 1 if NOW is worse beyond noise."""
    _compare(baseline, read_result(now))


@main.command()
@click.argument("result", type=_RESULT)
@click.argument("page", type=click.Path(dir_okay=False, path_type=Path))
def report(result: Path, page: Path) -> None:
    """Write RESULT as the HTML file PAGE."""
    write_report(read_result(result), page)


@main.command("merge")
@click.argument("samples", type=_RESULT, nargs=-1, required=True)
@click.option("--allowed-lag-ms", default=20.0, show_default=True)
@OUT
def merge_shards(samples: tuple[Path, ...], allowed_lag_ms: float, out: Path) -> None:
    """Merge the samples.json files of all shards of one run into one result."""
    result, records = merge([read_samples(file) for file in samples], allowed_lag_ms)
    _write(result, [records], out)
    _print_result(result)


@main.command("peer")
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--python", default=".venv-reference/bin/python", type=click.Path(path_type=Path), show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
def serve_peer(checkpoint: Path, python: Path, dtype: str) -> None:
    """The stand-in for a peer (loadtest/peer), until Enter is pressed."""
    with peer(python, checkpoint, dtype) as url:
        click.prompt(f"{url} answers. Enter ends it", default="", show_default=False)


main.add_command(side_by_side)
main.add_command(faults)
main.add_command(overload)
main.add_command(timeline)


@main.command("readme")
@click.option("--check", is_flag=True, help="Change nothing; fail if it would.")
def readme(check: bool) -> None:
    """Write the tables of README.md and docs/benchmarks.md from the result files in docs/benchmarks."""
    for page in PAGES:
        file = Path(page)
        before = file.read_text(encoding="utf-8")
        after = rewritten(page, before, Path("docs/benchmarks"))
        if check and after != before:
            raise click.ClickException(f"{page} differs from the result files; run `python -m loadtest readme`")
        file.write_text(after, encoding="utf-8")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise click.ClickException(f"--shard {text} is not i/n with i from 0 to n - 1")
    return int(index), int(count)


def _write(result: Result, runs: Sequence[Sequence[Record]], out: Path) -> None:
    result.write(out / "result.json")
    if runs:
        write_csv(runs, out / "requests.csv")
    write_report(result, out / "report.html")
    click.echo(f"written to {out}/", err=True)


def _print_result(result: Result) -> None:
    """Print the figures. Raises click.ClickException if the load generator did not keep up, so they mean nothing."""
    for run in result.runs:
        click.echo(markdown(GROUP_HEADS, group_rows(run)))
    if result.knee is not None:
        click.echo(markdown(TRIAL_HEADS, trial_rows(result.knee)))
        click.echo(knee_said(result.knee))
    runs = result.runs if result.knee is None or not result.knee.generators else [result.knee.trials[-1].run]
    for run in runs:
        if not run.self_check.valid:
            raise click.ClickException(invalid(run))


def _compare(baseline: Path, now: Result) -> None:
    differences = compare(read_result(baseline), now)
    click.echo(table(differences))
    worse = [found.figure for found in differences if found.regressed]
    if worse:
        raise click.ClickException(f"worse than {baseline} beyond noise: {', '.join(worse)}")


if __name__ == "__main__":
    main()
