"""The search for the knee of a server, with its output and its result file."""

import click

from loadtest.bench import Bench, requests_for, try_rate
from loadtest.knee import Knee, Promise, Trial, fewest_requests, find_knee
from loadtest.result import Result, conditions_of


def search(bench: Bench, promise: Promise, lowest: float, highest: float, tolerance: float, label: str) -> Result:
    """Search for the knee between `lowest` and `highest` requests a second. Raises click.ClickException."""
    if bench.load == "closed":
        raise click.ClickException("a closed loop has no rate, and so no knee; use --load poisson or bursty")
    if bench.requests < (fewest := fewest_requests(promise)):
        click.echo(
            f"note: a trial has {bench.requests} requests; with fewer than {fewest} a single late or spoiled stream "
            "may break the promise, so the knee may come out too low",
            err=True,
        )
    conditions = conditions_of(bench, label, None)
    with requests_for(bench) as make:
        knee = find_knee(
            lambda rate, attempt: try_rate(bench, make, promise, rate, attempt),
            promise, lowest=lowest, highest=highest, tolerance=tolerance, seen=_print_trial,
        )  # fmt: skip
    return Result(conditions=conditions, knee=_lighter(knee))


def _lighter(knee: Knee) -> Knee:
    """Return the knee with the timeline of the last kept trial only: timelines are most of a result file."""
    last = next((trial for trial in reversed(knee.trials) if trial.kept), None)
    trials = [
        trial if trial is last else trial.model_copy(update={"run": trial.run.model_copy(update={"timeline": []})})
        for trial in knee.trials
    ]
    return knee.model_copy(update={"trials": trials})


def _print_trial(trial: Trial) -> None:
    verdict = "kept" if trial.kept else "broken"
    click.echo(f"{trial.rate:.3g} a second: {trial.late} late, {trial.spoiled} spoiled: {verdict}", err=True)
