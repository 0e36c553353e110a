"""The phases follow one another, and each has its own rate of arrivals."""

import click
import pytest

from loadtest.timeline.phases import Phase, arrivals_s, phases_of


def test_phases_follow_one_another() -> None:
    assert phases_of(["1.5:60", "0:30", "4:10"]) == [Phase(0, 1.5, 60), Phase(60, 0, 30), Phase(90, 4, 10)]


@pytest.mark.parametrize("text", ["1", "1:2:3", "a:1", "-1:10", "1:0", "1:-5", "nan:5", "1:inf", ":"])
def test_a_phase_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.ClickException, match=r"is not RATE:SECONDS, such as 1\.5:60"):
        phases_of(["1:10", text])


def test_pauses_alone_are_refused() -> None:
    with pytest.raises(click.ClickException, match="every --phase is a pause"):
        phases_of(["0:10", "0:20"])


def test_requests_arrive_at_the_rate_of_their_phase_and_none_in_a_pause() -> None:
    moments_s = arrivals_s(phases_of(["2:500", "0:300", "8:500"]), seed=3)
    assert moments_s == sorted(moments_s)
    slow, pause, fast = (
        sum(begin <= at < end for at in moments_s) for begin, end in ((0, 500), (500, 800), (800, 1300))
    )
    assert slow + pause + fast == len(moments_s)
    assert pause == 0
    assert slow == pytest.approx(1000, rel=0.15)
    assert fast == pytest.approx(4000, rel=0.1)
    alike = arrivals_s(phases_of(["2:100", "2:100"]), seed=3)
    first = [at for at in alike if at < 100]
    assert alike[len(first) :] != pytest.approx([100 + at for at in first]), "phases of one rate differ"
