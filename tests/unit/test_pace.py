"""How many streams are let in, on made-up step times."""

import pytest

from qwen_tts.engine.pace import FRAME_S, Pace
from qwen_tts.engine.scheduler import Scheduler
from tests.unit.test_scheduler import queued, step


def paced(**times_ms: float) -> Pace:
    pace = Pace()
    for rows, time_ms in times_ms.items():
        pace.observe(int(rows.removeprefix("rows_")), time_ms / 1000)
    return pace


def test_what_is_known_of_more_or_fewer_rows_bounds_what_is_not() -> None:
    pace = paced(rows_1=20, rows_4=50)
    assert pace.allows(3), "no longer than four"
    assert pace.allows(5), "62.5 ms by ratio"
    assert not pace.allows(6), "75 ms by ratio are more than nine tenths of a frame"
    pace.observe(8, 0.07)
    assert pace.allows(8), "seen to be enough"
    assert not pace.allows(9)


def test_nothing_known_is_no_reason_to_wait() -> None:
    assert Pace().allows(16)


def test_where_one_alone_is_late_company_does_no_harm() -> None:
    assert paced(rows_1=300, rows_2=310).allows(8)


def test_a_slow_step_is_forgotten() -> None:
    pace = paced(rows_1=30, rows_2=30)
    assert pace.allows(3)
    pace.observe(2, 0.5)
    assert not pace.allows(3)
    for _ in range(40):
        pace.observe(2, 0.03)
    assert pace.allows(3)


@pytest.mark.parametrize(("row_ms", "admitted"), [(10.0, 7), (30.0, 2), (70.0, 1)])
def test_newcomers_wait_while_one_more_would_make_the_others_late(row_ms: float, admitted: int) -> None:
    scheduler = Scheduler(slots=8, max_waiting=8, pace=(pace := Pace()))
    queued(scheduler, 8, max_frames=99)
    for _ in range(40):
        plan = step(scheduler)
        if plan.running and plan.newcomer is None:
            pace.observe(len(plan.running), len(plan.running) * row_ms / 1000)
        elif plan.newcomer is not None:
            pace.observe(len(plan.sequences), len(plan.sequences) * row_ms / 1000)
    assert len(scheduler.running) == admitted
    assert len(scheduler.waiting) == 8 - admitted
    assert admitted * row_ms / 1000 <= FRAME_S
