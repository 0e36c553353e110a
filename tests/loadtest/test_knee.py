"""The search finds the knee, and a trial that stops early has the verdict of the whole trial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.knee import Judge, Knee, Promise, Trial, fewest_requests, find_knee, kept_at
from loadtest.summary import Run, distribution, summarise
from loadtest.tables import knee_said
from tests.loadtest.made_up import record

_PROMISE = Promise(heard_p95_ms=500)


def _run(heard_s: float) -> Run:
    return summarise([record(0, heard_s=heard_s)], [0.0], 0.1, 20)


class Service:
    """A service that keeps its promise up to `capacity`; single attempts may be lucky."""

    def __init__(self, capacity: float, lucky: tuple[tuple[int, float], ...] = ()) -> None:
        self.capacity, self.lucky = capacity, dict(lucky)
        self.tried: list[tuple[float, int]] = []

    def __call__(self, rate: float, attempt: int) -> Trial:
        self.tried.append((rate, attempt))
        kept = rate <= self.lucky.get(attempt, self.capacity)
        return Trial(rate=rate, requests=100, kept=kept, stopped=not kept, late=0, spoiled=0, run=_run(0.2))


@pytest.mark.parametrize("capacity", [0.3, 1.0, 3.7, 20.0, 41.0])
def test_the_knee_is_bracketed(capacity: float) -> None:
    service = Service(capacity)
    knee = find_knee(service, _PROMISE, lowest=0.25, highest=64, tolerance=0.1)
    assert knee.broken_at is not None
    assert knee.rate <= capacity < knee.broken_at
    assert knee.broken_at / knee.rate <= 1.1
    assert [trial.rate for trial in knee.trials] == [rate for rate, _ in service.tried]


def test_a_service_that_keeps_it_nowhere() -> None:
    knee = find_knee(Service(0.1), _PROMISE, lowest=0.25, highest=64, tolerance=0.1)
    assert (knee.rate, knee.broken_at, len(knee.trials)) == (0.0, 0.25, 1)


def test_a_service_that_is_faster_than_anyone_asked() -> None:
    knee = find_knee(Service(1000), _PROMISE, lowest=1, highest=48, tolerance=0.1)
    assert (knee.rate, knee.broken_at) == (48, None)


def test_luck_in_one_attempt_is_not_the_result() -> None:
    knee = find_knee(Service(3.0, lucky=((0, 5.0),)), _PROMISE, lowest=1, highest=64, tolerance=0.1)
    assert 2.7 < knee.rate <= 3.0


@pytest.mark.parametrize(
    ("limit_ms", "expected"), [(500, (4.0, 8.0)), (400, (2.0, 4.0)), (300, (1.0, 2.0)), (200, (0.0, 1.0))]
)
def test_the_same_trials_say_what_was_kept_at_stricter_limits(limit_ms: float, expected: tuple[float, float]) -> None:
    heard_s = [(1.0, 0.2), (1.0, 0.25), (2.0, 0.3), (2.0, 0.31), (4.0, 0.39), (4.0, 0.45), (8.0, 0.1)]
    trials = [
        Trial(
            rate=rate, requests=100, kept=rate < 8, stopped=rate == 8, late=0, spoiled=0, run=_run(seconds)
        )
        for rate, seconds in heard_s
    ]  # fmt: skip
    knee = Knee(promise=_PROMISE, rate=4.0, broken_at=8.0, trials=trials)
    assert kept_at(knee, limit_ms) == expected


def test_a_generator_that_does_not_keep_up_is_no_limit_of_the_server() -> None:
    tired = summarise([record(0)], [50.0], 0.9, 20)

    def try_rate(rate: float, attempt: int) -> Trial:
        run = _run(0.2) if rate < 4 else tired
        return Trial(rate=rate, requests=1, kept=rate < 4, stopped=False, late=0, spoiled=0, run=run)

    knee = find_knee(try_rate, _PROMISE, lowest=1, highest=64, tolerance=0.5)
    assert knee.generators
    assert knee_said(knee).startswith("NOT the server's knee")
    assert not find_knee(Service(3.0), _PROMISE, lowest=1, highest=64, tolerance=0.5).generators


def test_as_many_may_be_late_or_spoiled_as_was_promised() -> None:
    judge = Judge(_PROMISE, 1000)
    assert not any(judge.see(record(index, heard_s=0.6)) for index in range(50))
    assert judge.see(record(50, heard_s=0.6)), "the 95th percentile of 1000 is now above the limit"
    judge = Judge(_PROMISE, 1000)
    assert not judge.see(record(0, underruns=3))
    assert judge.see(record(1, error="http 503")), "2 of 1000 are more than 0.1 %"
    judge = Judge(Promise(heard_p95_ms=500, spoiled_share=None), 1000)
    assert not any(judge.see(record(index, underruns=1)) for index in range(1000))
    assert (fewest_requests(_PROMISE), fewest_requests(Promise(heard_p95_ms=1, spoiled_share=None))) == (1000, 20)


@given(st.lists(st.sampled_from([0.1, 0.4999, 0.5, 0.5001, 2.0, None]), min_size=1, max_size=60))
def test_the_verdict_is_that_of_the_percentile_of_all(heard: list[float | None]) -> None:
    records = [
        record(index, error="reset") if moment is None else record(index, heard_s=moment)
        for index, moment in enumerate(heard)
    ]
    judge = Judge(Promise(heard_p95_ms=500, spoiled_share=None), len(records))
    verdicts = [judge.see(one) for one in records]
    failed = sum(one.error is not None for one in records)
    p95 = distribution((one.heard_ms for one in records if one.error is None), failed)["p95"]
    assert judge.broken == (p95 is None or p95 > 500)
    assert verdicts == sorted(verdicts), "once it is certain it stays so"
