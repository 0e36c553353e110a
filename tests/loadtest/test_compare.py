"""A build is not worse than itself, and a build that is a fifth slower is worse."""

import click
import numpy as np
import pytest

from loadtest.compare import FEWEST_RUNS, compare, table
from loadtest.result import Result
from loadtest.summary import Run, summarise
from tests.loadtest.made_up import record
from tests.loadtest.test_summary import CONDITIONS


def _run(rng: np.random.Generator, slower: float, spoiled: float = 0.0) -> Run:
    """Return a run of 200 requests, with noise of the run and of each request."""
    today = slower * rng.normal(1.0, 0.03)
    return summarise(
        [
            record(
                index, heard_s=today * rng.gamma(20, 0.01), chunk_s=today * rng.gamma(50, 0.002),
                scheduled_s=0.1 * index, underruns=int(rng.random() < spoiled),
            )
            for index in range(200)
        ],
        [0.0], 0.1, 20,
    )  # fmt: skip


def _result(seed: int, slower: float = 1.0, runs: int = 5, spoiled: float = 0.0) -> Result:
    rng = np.random.default_rng(seed)
    return Result(conditions=CONDITIONS, runs=[_run(rng, slower, spoiled) for _ in range(runs)])


def _worse(baseline: Result, now: Result) -> set[str]:
    return {found.figure for found in compare(baseline, now) if found.regressed}


def test_a_build_is_as_good_as_itself_and_a_fifth_slower_is_found() -> None:
    false_alarms = caught = 0
    for seed in range(4):
        baseline = _result(seed)
        false_alarms += bool(_worse(baseline, _result(seed + 100)))
        worse = _worse(baseline, _result(seed + 200, slower=1.2))
        caught += {"heard p50 ms", "RTF p50", "gap p50 ms"} <= worse
    assert false_alarms <= 1
    assert caught >= 3


def test_underruns_beyond_chance_are_found_and_single_ones_are_not() -> None:
    baseline = _result(1)
    assert _worse(baseline, _result(2, spoiled=0.002)) == set()
    assert _worse(baseline, _result(3, spoiled=0.15)) == {"underran"}


def test_more_speed_is_no_regression() -> None:
    differences = compare(_result(1), _result(2, slower=0.7))
    assert not any(found.regressed for found in differences)
    assert {found.figure for found in differences if found.improved} >= {"heard p50 ms", "RTF p50"}
    assert "| better |" in table(differences)


def test_what_cannot_be_compared_is_said() -> None:
    good = _result(1)
    with pytest.raises(click.ClickException, match="2 runs, too few to know the noise; use --repeat 3 or more"):
        compare(good, _result(2, runs=FEWEST_RUNS - 1))
    other = good.model_copy(update={"conditions": CONDITIONS.model_copy(update={"rate": 9.0})})
    with pytest.raises(click.ClickException, match=r"rate was 9\.0, and is 2\.0 now"):
        compare(other, good)
    check = good.runs[0].self_check.model_copy(update={"valid": False})
    busy = good.model_copy(update={"runs": [run.model_copy(update={"self_check": check}) for run in good.runs]})
    with pytest.raises(click.ClickException, match="did not keep up"):
        compare(good, busy)
