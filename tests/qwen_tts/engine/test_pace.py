"""How many streams are let in, on a made-up clock and made-up step times."""

from collections.abc import Callable

import pytest

from qwen_tts.engine.pace import FRAME_S, LIMIT_S, Pace
from qwen_tts.engine.scheduler import Scheduler
from qwen_tts.errors import Overloaded
from tests.qwen_tts.engine.test_scheduler import frames_of, queued, sequence


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(clock: Clock, **times_ms: float) -> Pace:
    pace = Pace(clock)
    for rows, time_ms in times_ms.items():
        pace.observe(int(rows.removeprefix("rows_")), time_ms / 1000, read=False)
    return pace


def test_one_more_is_tried_where_there_is_room_and_known_from_then_on() -> None:
    pace = paced(Clock(), rows_1=50)
    assert pace.allows(2) == "yes"
    assert pace.allows(3) == "unknown", "two have not been seen"
    pace.observe(2, 0.065, read=False)
    assert pace.allows(3) == "no", "65 ms, and another would add 15"
    pace.observe(2, 0.05, read=False)
    pace.observe(3, 0.2, read=False)
    assert pace.allows(3) == "no"


def test_what_was_seen_long_ago_is_forgotten() -> None:
    pace = paced(clock := Clock(), rows_1=50, rows_2=90)
    assert pace.allows(2) == "no"
    clock.now += 299
    pace.observe(1, 0.05, read=False)
    assert pace.allows(2) == "no"
    clock.now += 2
    assert pace.allows(2) == "yes", "tried again"


def test_what_is_true_of_fewer_is_true_of_more() -> None:
    pace = paced(Clock(), rows_5=60, rows_6=65)
    assert pace.allows(6) == "yes"
    for _ in range(20):
        pace.observe(5, 0.1, read=False)
    assert pace.allows(6) == "no"


def test_a_hiccup_is_no_property_of_the_machine() -> None:
    pace = paced(Clock(), rows_1=30, rows_2=50)
    pace.observe(1, 3.0, read=False)
    pace.observe(2, 3.0, read=True)
    assert pace.allows(2) == "yes"
    assert pace.can_read(2, 0.16)


def test_what_another_adds_is_not_forgotten() -> None:
    pace = paced(clock := Clock(), rows_3=59, rows_4=71)
    clock.now += 301
    pace.observe(4, 0.071, read=False)
    assert pace.allows(5) == "no"


def test_a_step_is_easy_that_takes_half_of_what_it_may() -> None:
    pace = paced(Clock(), rows_1=30, rows_2=40)
    assert [pace.is_easy(rows) for rows in (1, 2, 3)] == [True, False, True]


def test_a_prompt_is_read_when_there_is_audio_in_hand_for_it() -> None:
    pace = paced(Clock(), rows_2=40)
    assert pace.can_read(2, 0.04), "nothing known of prompts"
    for _ in range(8):
        pace.observe(2, 0.14, read=True)
    assert not pace.can_read(2, 0.13), "the step itself and the piece"
    assert pace.can_read(2, 0.15)
    assert pace.allows(3) == "yes", "steps that read are not the streams' fault"


def run(scheduler: Scheduler, clock: Clock, steps: int, cost: Callable[[int, bool], float]) -> float:
    """Steps that take `cost(rows, read)` seconds; returns the least headroom that a stream ever had."""
    assert scheduler.pace is not None
    least = 0.0
    for _ in range(steps):
        plan = scheduler.schedule()
        read = len(plan.rows) > 0
        clock.now += (seconds := cost(len(plan.running), read))
        if plan.running:
            least = min(least, *(one.playback.headroom(clock.now) for one in plan.running))
            scheduler.pace.observe(plan.height, seconds, read=read)
        scheduler.update(plan, frames_of(plan))
    return least


@pytest.mark.parametrize(("base_ms", "row_ms", "admitted"), [(0, 9, 8), (0, 30, 2), (40, 8, 4), (65, 6, 1)])
def test_as_many_streams_as_can_be_kept_in_time(base_ms: float, row_ms: float, admitted: int) -> None:
    scheduler = Scheduler(8, 8, prefill_rows=2, clock=(clock := Clock()))
    scheduler.pace = Pace(clock)
    for rows in (1, 2):  # as seen at the start
        scheduler.pace.observe(rows, (base_ms + rows * row_ms) / 1000, read=False)
    queued(scheduler, 8, max_frames=10_000)
    least = run(scheduler, clock, 400, lambda rows, read: (base_ms + rows * row_ms + 60 * read) / 1000)
    assert len(scheduler.running) == admitted
    assert len(scheduler.waiting) == 8 - admitted
    assert admitted * row_ms + base_ms <= 1000 * LIMIT_S + 1e-6
    assert least >= -0.06, "the first piece read beside a stream shows what a piece takes"


def test_a_full_house_refuses_beyond_the_queue() -> None:
    scheduler = Scheduler(8, 1, clock=(clock := Clock()))
    scheduler.pace = Pace(clock)
    queued(scheduler, 3, max_frames=10_000)
    run(scheduler, clock, 20, lambda rows, read: 0.03 * rows)
    assert len(scheduler.running) == 2
    with pytest.raises(Overloaded, match="2 streams are all that can be kept in time and 1 requests are waiting"):
        scheduler.add(sequence())


def test_a_listener_who_ran_out_goes_on_with_what_comes() -> None:
    stream = sequence()
    stream.playback.requested = 10.0
    stream.append((1,), 10.0)
    assert stream.playback.headroom(10.0) == pytest.approx(FRAME_S)
    assert stream.playback.headroom(10.5) == pytest.approx(FRAME_S - 0.5)
    stream.append((1,), 10.5)
    assert stream.playback.headroom(10.5) == pytest.approx(FRAME_S)


def test_a_newcomer_below_the_highest_row_costs_nothing_more() -> None:
    scheduler = Scheduler(4, 8, clock=(clock := Clock()))
    first, second = queued(scheduler, 2, max_frames=10_000)
    scheduler.pace = Pace(clock)
    run(scheduler, clock, 6, lambda rows, read: 0.07 if rows == 2 else 0.02)
    assert (first.slot, second.slot) == (0, 1)
    scheduler.cancel(first)
    (third,) = queued(scheduler, 1)
    run(scheduler, clock, 2, lambda rows, read: 0.07)
    assert third.slot == 0


def test_late_streams_do_not_keep_a_newcomer_from_reading() -> None:
    pace = paced(Clock(), rows_2=90)
    pace.observe(2, 0.3, read=True)
    assert pace.can_read(2, 0.0)


def test_the_streams_that_run_in_time_are_known_from_the_steps() -> None:
    assert paced(Clock()).most_in_time(8) == 8, "nothing is known"
    assert paced(Clock(), rows_1=20).most_in_time(8) == 8, "one number of rows says nothing about others"
    assert paced(Clock(), rows_1=20, rows_2=30).most_in_time(8) == 6, "six take 70 ms of 72"
    assert paced(Clock(), rows_1=20, rows_2=30).most_in_time(4) == 4
    assert paced(Clock(), rows_1=20, rows_3=20).most_in_time(8) == 8, "rows cost nothing"
    assert paced(Clock(), rows_1=20, rows_2=22, rows_5=90).most_in_time(8) == 4, "five were late"
    assert paced(Clock(), rows_1=100).most_in_time(8) == 1


def test_old_steps_say_nothing_about_the_streams_that_run_in_time() -> None:
    pace = paced(clock := Clock(), rows_1=20, rows_2=90)
    assert pace.most_in_time(8) == 1
    clock.now += 301
    assert pace.most_in_time(8) == 8
