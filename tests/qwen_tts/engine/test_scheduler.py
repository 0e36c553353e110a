"""The scheduler's bookkeeping, without a model: frames are made up."""

import itertools
import random
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from qwen_tts.engine.prefix import Prefix
from qwen_tts.engine.scheduler import Plan, Scheduler
from qwen_tts.engine.sequence import CHUNK_SCHEDULE, Frame, Sequence, Status, chunk_sizes
from qwen_tts.errors import Overloaded
from qwen_tts.prompt import PromptLayout
from qwen_tts.request import CustomVoice, SpeechRequest

FRAME: Frame = (1, 2, 3)


def sequence(max_frames: int = 3) -> Sequence:
    ids = np.zeros(5, dtype=np.int64)
    layout = PromptLayout(text_ids=ids, codec_ids=ids, trailing_text_ids=ids[:0])
    return Sequence(SpeechRequest("a", CustomVoice("ryan")), layout, max_frames)


def queued(scheduler: Scheduler, count: int, max_frames: int = 3) -> list[Sequence]:
    sequences = [sequence(max_frames) for _ in range(count)]
    for one in sequences:
        scheduler.add(one)
    return sequences


def step(scheduler: Scheduler, ends: Collection[Sequence] = ()) -> Plan:
    """A whole step in which the sequences of `ends` reach their end of speech."""
    plan = scheduler.schedule()
    scheduler.update(plan, frames_of(plan, ends))
    return plan


def frames_of(plan: Plan, ends: Collection[Sequence] = ()) -> dict[int, Frame | None]:
    frames: dict[int, Frame | None] = {}
    for one in plan.sequences:
        assert one.slot is not None
        frames[one.slot] = None if one in ends else FRAME
    return frames


def test_first_come_first_served_one_a_step() -> None:
    scheduler = Scheduler(slots=2, max_waiting=8)
    first, second, third = queued(scheduler, 3)
    assert step(scheduler) == Plan(first, range(5), running=())
    assert step(scheduler) == Plan(second, range(5), running=(first,))
    plan = step(scheduler)
    assert plan == Plan(None, range(0), running=(first, second)), "no slot for the third"
    assert first.finished
    assert step(scheduler) == Plan(third, range(5), running=(second,))


def test_who_has_other_audio_to_hear_first_comes_later_by_that_less_a_second() -> None:
    scheduler = Scheduler(slots=1, max_waiting=8)
    requests = [replace(SpeechRequest("a", CustomVoice("ryan")), ahead_s=ahead_s) for ahead_s in (9.0, 2.0, 0.0, 0.0)]
    later, soon, now, next_one = (replace(sequence(1), request=request, queued_s=100.0) for request in requests)
    too_long = replace(later, queued_s=92.1, frames=[])  # its listener wants it before `soon`
    for one in (later, soon, too_long, now, next_one):
        scheduler.add(one)
    assert [step(scheduler).newcomer for _ in range(5)] == [now, next_one, too_long, soon, later]


def test_a_prompt_is_read_in_pieces_while_others_get_their_frames() -> None:
    scheduler = Scheduler(slots=2, max_waiting=8, prefill_rows=2)
    first, second = queued(scheduler, 2, max_frames=99)
    for rows in (range(2), range(2, 4)):
        plan = step(scheduler)
        assert (plan, plan.sequences) == (Plan(first, rows, running=()), ())
    assert step(scheduler).sequences == (first,)
    plans = [step(scheduler) for _ in range(3)]
    assert plans == [Plan(second, rows, running=(first,)) for rows in (range(2), range(2, 4), range(4, 5))]
    assert [plan.sequences for plan in plans] == [(first,), (first,), (first, second)]
    assert (len(first.frames), len(second.frames)) == (4, 1)


@pytest.mark.parametrize(
    ("known", "pieces"), [(0, [range(2), range(2, 3), range(3, 5)]), (3, [range(3, 5)])], ids=["read", "known"]
)
def test_the_rest_is_cut_alike_whether_the_prefix_is_known_or_not(known: int, pieces: list[range]) -> None:
    scheduler = Scheduler(slots=1, max_waiting=8, prefill_rows=2, known_rows=lambda newcomer: known)
    one = replace(sequence(), prefix=Prefix(3, "content"))
    scheduler.add(one)
    assert [step(scheduler).rows for _ in pieces] == pieces
    assert (one.rows_reused, len(one.frames)) == (known, 1)


@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_leaving_with_the_prompt_half_read(how: str) -> None:
    scheduler = Scheduler(slots=1, max_waiting=8, prefill_rows=2)
    first, second = queued(scheduler, 2)
    step(scheduler)
    scheduler.cancel(first) if how == "cancel" else scheduler.abort()
    if how == "abort":
        (second,) = queued(scheduler, 1)
    assert step(scheduler) == Plan(second, range(2), running=())
    assert (first.finish_reason, first.slot, first.frames) == ("cancelled", None, [])


def test_lowest_slot_first() -> None:
    scheduler = Scheduler(slots=3, max_waiting=8)
    a, b, c = queued(scheduler, 3, max_frames=99)
    for _ in range(3):
        step(scheduler)
    assert (a.slot, b.slot, c.slot) == (0, 1, 2)
    step(scheduler, [c])
    step(scheduler, [a])
    d, e = queued(scheduler, 2)
    step(scheduler)
    step(scheduler)
    assert (d.slot, e.slot) == (0, 2)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("max_waiting", [0, 2])
def test_overloaded_at_the_bound_and_not_before(slots: int, max_waiting: int) -> None:
    """Those whom a free slot awaits do not count as waiting."""
    scheduler = Scheduler(slots, max_waiting)
    queued(scheduler, slots + max_waiting, max_frames=99)
    with pytest.raises(Overloaded, match=f"all {slots} slots are busy and {max_waiting} requests are waiting"):
        scheduler.add(sequence())
    for _ in range(slots):
        step(scheduler)
    assert len(scheduler.waiting) == max_waiting
    with pytest.raises(Overloaded):
        scheduler.add(sequence())
    step(scheduler, [scheduler.running[0]])
    scheduler.add(sequence())
    with pytest.raises(Overloaded):
        scheduler.add(sequence())


def test_half_idle_is_room_for_one_that_leaves_half_to_others() -> None:
    scheduler = Scheduler(slots=4, max_waiting=8)
    half_idle = []
    for _ in range(4):
        half_idle.append(scheduler.half_idle)
        scheduler.add(sequence(max_frames=10))
        assert not scheduler.half_idle, "somebody waits"
        scheduler.update(plan := scheduler.schedule(), frames_of(plan))
    assert half_idle == [True, True, False, False]
    assert Scheduler(slots=1, max_waiting=0).half_idle, "nobody else is there"


def test_the_three_ends() -> None:
    scheduler = Scheduler(slots=3, max_waiting=8)
    stopped, full, cancelled = queued(scheduler, 3)
    step(scheduler)  # stopped has a frame
    step(scheduler)  # full has one too
    step(scheduler, [stopped])  # cancelled has its first, full its second
    plan = scheduler.schedule()
    scheduler.cancel(cancelled)
    scheduler.update(plan, frames_of(plan))
    ends = [(one.finish_reason, len(one.frames)) for one in (stopped, full, cancelled)]
    assert ends == [("stop", 2), ("length", 3), ("cancelled", 1)]
    assert scheduler.idle
    assert scheduler.free_slots == 3


def test_cancel_while_waiting_is_at_once() -> None:
    scheduler = Scheduler(slots=1, max_waiting=8)
    first, second, third = queued(scheduler, 3)
    scheduler.cancel(second)
    assert (second.status, second.finish_reason) == (Status.FINISHED, "cancelled")
    step(scheduler, [])
    step(scheduler, [first])
    assert step(scheduler).newcomer is third


def test_cancel_between_steps_frees_the_slot_for_the_next_one() -> None:
    scheduler = Scheduler(slots=1, max_waiting=8)
    first, second = queued(scheduler, 2)
    step(scheduler)
    scheduler.cancel(first)
    assert not first.finished, "its slot may be in use by a step under way"
    assert step(scheduler) == Plan(second, range(5), running=())
    assert (first.finish_reason, second.slot) == ("cancelled", 0)


def test_cancel_after_the_end_changes_nothing() -> None:
    scheduler = Scheduler(slots=1, max_waiting=8)
    (only,) = queued(scheduler, 1, max_frames=1)
    step(scheduler)
    scheduler.cancel(only)
    assert (only.finish_reason, only.cancel_requested) == ("length", False)


def test_abort_ends_everyone() -> None:
    scheduler = Scheduler(slots=2, max_waiting=8)
    everyone = queued(scheduler, 4, max_frames=99)
    step(scheduler)
    step(scheduler)
    scheduler.abort()
    assert {one.finish_reason for one in everyone} == {"cancelled"}
    assert (scheduler.idle, scheduler.free_slots) == (True, 2)


def test_a_slot_in_two_hands_is_found() -> None:
    scheduler = Scheduler(slots=2, max_waiting=8)
    queued(scheduler, 2, max_frames=99)
    step(scheduler)
    step(scheduler)
    scheduler.running[1].slot = 0
    with pytest.raises(AssertionError):
        scheduler.check()


def test_a_sequence_is_submitted_once() -> None:
    scheduler = Scheduler(slots=1, max_waiting=8)
    (only,) = queued(scheduler, 1)
    with pytest.raises(AssertionError, match="twice"):
        scheduler.add(only)
    step(scheduler)
    with pytest.raises(AssertionError, match="running"):
        scheduler.add(only)


def test_frames_of_a_slot_that_was_not_planned_are_noticed() -> None:
    scheduler = Scheduler(slots=2, max_waiting=8)
    queued(scheduler, 1)
    plan = scheduler.schedule()
    with pytest.raises(AssertionError, match="not planned"):
        scheduler.update(plan, {1: FRAME})


def test_a_frame_too_many_is_noticed() -> None:
    one = sequence(max_frames=1)
    one.append(FRAME, 0.0)
    with pytest.raises(AssertionError, match="beyond"):
        one.append(FRAME, 0.1)


@pytest.mark.parametrize("seed", range(5))
def test_random_walk(seed: int) -> None:
    """Add, cancel and end in any order: every request ends, in its turn, and no slot is lost."""
    rng = random.Random(seed)
    scheduler = Scheduler(rng.randint(1, 4), rng.randint(0, 3), prefill_rows=rng.choice((1, 2, 4, 5, 32)))
    accepted: list[Sequence] = []
    started: list[Sequence] = []
    for _ in range(500):
        match rng.choice(("add", "add", "cancel", "step", "step")):
            case "add":
                room = scheduler.max_waiting + scheduler.free_slots - len(scheduler.waiting)
                try:
                    accepted += queued(scheduler, 1, max_frames=rng.randint(1, 6))
                except Overloaded:
                    assert room == 0
                else:
                    assert room > 0
            case "cancel" if accepted:
                scheduler.cancel(rng.choice(accepted))
            case "step":
                lowest_free = min(set(range(scheduler.slots)) - {one.slot for one in kept(scheduler)}, default=None)
                plan = step(scheduler, [one for one in scheduler.running if rng.random() < 0.2])
                if plan.newcomer is not None and plan.rows.start == 0:
                    started.append(plan.newcomer)
                    assert plan.newcomer.finished or plan.newcomer.slot == lowest_free
        assert scheduler.free_slots + len(scheduler.running) == scheduler.slots
    while not scheduler.idle:
        plan = step(scheduler)
        started += [plan.newcomer] if plan.newcomer is not None and plan.rows.start == 0 else []
    assert all(one.finish_reason is not None and one.slot is None for one in accepted)
    assert started == [one for one in accepted if one in started], "in the order they came"
    assert len(started) > 10
    never_started = [one for one in accepted if one not in started]
    assert all((one.finish_reason, one.frames) == ("cancelled", []) for one in never_started)


def kept(scheduler: Scheduler) -> list[Sequence]:
    """Those who hold their slot through the next `schedule`."""
    return [one for one in scheduler.running if not one.cancel_requested]


def test_position_is_where_the_next_row_goes() -> None:
    one = sequence()
    assert one.position == 5, "the prompt's five rows"
    one.frames.append(FRAME)
    assert one.position == 5, "the newest frame is not read yet"
    one.frames.append(FRAME)
    assert one.position == 6


def test_chunks_grow_and_stay() -> None:
    assert [size for size, _ in zip(chunk_sizes(CHUNK_SCHEDULE), range(7), strict=False)] == [1, 2, 4, 8, 8, 8, 8]
    assert [size for size, _ in zip(chunk_sizes((3,)), range(3), strict=False)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("first", "sizes"),
    [(1, [1, 2, 4, 8, 8]), (2, [2, 4, 8, 8, 8]), (3, [3, 4, 8, 8, 8]), (20, [20, 8, 8, 8, 8])],
)
def test_a_first_chunk_of_another_size(first: int, sizes: list[int]) -> None:
    assert list(itertools.islice(chunk_sizes((1, 2, 4, 8), first), 5)) == sizes
    assert list(itertools.islice(chunk_sizes((6,), first), 3)) == [first, 6, 6]
