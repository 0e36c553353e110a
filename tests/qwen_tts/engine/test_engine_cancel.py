"""Requests given up at any moment, and an engine that stops."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qwen_tts.engine.engine import Engine
from qwen_tts.engine.pace import Pace
from qwen_tts.engine.scheduler import Plan
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped, Overloaded
from qwen_tts.request import SpeechRequest
from tests.qwen_tts.tiny import codes, custom, drain, speak, tiny_engine

FRAMES = 8


def assert_as_fresh(engine: Engine) -> None:
    engine.step()  # a running sequence that was given up leaves at the next step
    scheduler = engine._scheduler
    assert (engine.running, engine.waiting, scheduler.free_slots) == (0, 0, scheduler.slots)


@pytest.fixture(scope="module")
def follower(custom_voice: Path) -> list[Frame]:
    """What the request after the cancelled one says on a fresh engine."""
    return codes(tiny_engine(custom_voice), custom("And now?", seed=9, max_frames=20))


@pytest.mark.parametrize("steps", [0, 1, 4, FRAMES - 1], ids=["waiting", "after prefill", "midway", "before the last"])
def test_cancel_between_steps(custom_voice: Path, follower: list[Frame], steps: int) -> None:
    engine = tiny_engine(custom_voice)
    sequence = engine.add(custom(max_frames=FRAMES))
    for _ in range(steps):
        engine.step()
    engine.cancel(sequence)
    assert_as_fresh(engine)
    assert (sequence.finish_reason, len(sequence.frames), sequence.slot) == ("cancelled", steps, None)
    assert codes(engine, custom("And now?", seed=9, max_frames=20)) == follower


def test_cancel_in_a_full_batch(custom_voice: Path, follower: list[Frame]) -> None:
    """The neighbours of the one that goes, and the one that takes its slot, say what they say alone."""
    engine = tiny_engine(custom_voice, slots=3)
    sequences = [engine.add(custom(seed=seed, max_frames=20)) for seed in range(3)]
    for _ in range(6):
        engine.step()
    engine.cancel(sequences[1])
    newcomer = engine.add(custom("And now?", seed=9, max_frames=20))
    engine.step()
    assert newcomer.slot == 1
    drain(engine)
    assert newcomer.frames == follower
    for seed in (0, 2):
        assert sequences[seed].frames == codes(tiny_engine(custom_voice), custom(seed=seed, max_frames=20))
    assert_as_fresh(engine)


def during_step(engine: Engine, sequence: Sequence, step: int) -> None:
    """Cancel `sequence` while the model runs its `step`. A lock held over the model would hang here for ever."""
    calls = 0

    def head_was_called(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            engine.cancel(sequence)

    engine._runner.talker.codec_head.register_forward_hook(head_was_called)


@pytest.mark.parametrize("step", [1, 4, FRAMES])
def test_cancel_during_a_step(custom_voice: Path, step: int) -> None:
    engine = tiny_engine(custom_voice)
    sequence = engine.add(custom(max_frames=FRAMES))
    during_step(engine, sequence, step)
    drain(engine)
    assert sequence.finish_reason == "cancelled"
    assert len(sequence.frames) == step - 1, "the frame under way is not delivered"
    assert_as_fresh(engine)


def test_cancel_after_the_end_changes_nothing(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    (sequence,) = speak(engine, custom(max_frames=FRAMES))
    engine.cancel(sequence)
    engine.cancel(sequence)
    assert (sequence.finish_reason, len(sequence.frames)) == ("length", FRAMES)
    assert_as_fresh(engine)


def test_cancelling_a_waiting_request_makes_room(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice, slots=1, max_waiting=1)
    engine.add(custom(max_frames=FRAMES))
    engine.step()
    waiting = engine.add(custom(max_frames=FRAMES))
    with pytest.raises(Overloaded):
        engine.add(custom())
    engine.cancel(waiting)
    later = engine.add(custom(max_frames=FRAMES))
    drain(engine)
    assert (waiting.finish_reason, later.finish_reason) == ("cancelled", "length")


@pytest.mark.parametrize("step", [1, 4], ids=["in the first step", "midway"])
def test_a_step_that_is_interrupted_leaves_no_wrong_codes(custom_voice: Path, step: int) -> None:
    """Ctrl-C in one stream of a shared model: the others end as cancelled, or go on as if nothing had been."""
    requests = [custom(seed=seed) for seed in (1, 2)]
    expected = [codes(tiny_engine(custom_voice), request) for request in requests]
    engine = tiny_engine(custom_voice)
    sequences = [engine.add(request) for request in requests]
    calls = 0

    def interrupt(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt

    engine._runner.talker.code_predictor.lm_head[0].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        drain(engine)
    drain(engine)
    for sequence, frames in zip(sequences, expected, strict=True):
        assert sequence.finish_reason == "cancelled" or sequence.frames == frames


@pytest.mark.parametrize("when", ["schedule", "update"])
def test_a_step_interrupted_in_its_bookkeeping_leaves_no_wrong_codes(
    custom_voice: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    engine = tiny_engine(custom_voice, slots=3)
    sequences = [engine.add(custom(seed=seed)) for seed in range(4)]
    engine.step()
    step_done = getattr(engine._scheduler, when)

    def interrupted(*args: object) -> None:
        step_done(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine._scheduler, when, interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    monkeypatch.undo()
    assert [sequence.finish_reason for sequence in sequences] == ["cancelled"] * 4
    assert codes(engine, custom(seed=1)) == codes(tiny_engine(custom_voice), custom(seed=1))
    assert_as_fresh(engine)


def test_a_collection_in_the_middle_of_bookkeeping_may_cancel(custom_voice: Path) -> None:
    """The garbage collector closes forgotten streams wherever it runs, in this thread, with the lock held."""
    engine = tiny_engine(custom_voice)
    forgotten, other = engine.add(custom(seed=1)), engine.add(custom(seed=2))
    engine.step()
    engine.step()
    schedule = engine._scheduler.schedule

    def collecting() -> Plan:
        engine.cancel(forgotten)
        return schedule()

    engine._scheduler.schedule = collecting  # type: ignore[method-assign]
    drain(engine)
    assert (forgotten.finish_reason, other.finish_reason) == ("cancelled", "length")


def test_numbers_that_overflow_end_their_own_sequence_only(custom_voice: Path) -> None:
    """float16 ends at 65504. What one request leaves behind must not reach the next owner of its slot."""
    alone = [codes(tiny_engine(custom_voice), custom(seed=seed, max_frames=20)) for seed in (1, 2)]
    engine = tiny_engine(custom_voice, slots=2)
    bad = custom("Z", max_frames=20)
    embedding = engine._runner.talker.model.text_embedding
    (z,) = engine._tokenizer.encode("Z")
    embedding.weight[z] = float("inf")
    overflowing = engine.add(bad)
    neighbour = engine.add(custom(seed=1, max_frames=20))
    engine.step()
    assert (overflowing.finish_reason, overflowing.frames) == ("failed", [])
    engine.step()
    engine.step()
    heir = engine.add(custom(seed=2, max_frames=20))
    engine.step()
    assert heir.slot == 1 - (neighbour.slot or 0)
    drain(engine)
    assert [neighbour.frames, heir.frames] == alone


def overflowing(engine: Engine) -> SpeechRequest:
    """A prompt of several pieces whose first piece overflows in float16."""
    (z,) = engine._tokenizer.encode("Z")
    engine._runner.talker.model.text_embedding.weight[z] = 6e4
    return custom("Z" * 100, max_frames=20)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_cancelled_prompt_that_overflowed_leaves_the_pools_fresh(
    custom_voice: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    engine = tiny_engine(custom_voice, slots=1, dtype=torch.float16)
    fresh = tiny_engine(custom_voice, slots=1, dtype=torch.float16)
    pools = engine._runner.pools
    bad = engine.add(overflowing(engine))
    for _ in range(pieces):
        engine.step()
    assert 0 < bad.rows_read < len(bad.layout)
    assert not pools.kv.isfinite().all()
    wiped: list[int] = []
    wipe = engine._runner._wipe

    def count(slot: int, rows: int) -> None:
        assert not engine._lock._is_owned(), "others wait for the lock while a slot is wiped"  # type: ignore[attr-defined]
        wiped.append(rows)
        wipe(slot, rows)

    monkeypatch.setattr(engine._runner, "_wipe", count)
    engine.cancel(bad)
    engine.step()
    assert wiped == [bad.rows_read + 1], "the rows that were written, and one that an idle row may write"
    for name, tensor in vars(pools).items():
        if isinstance(tensor, Tensor):
            assert torch.equal(tensor, getattr(fresh._runner.pools, name)), name
    assert codes(engine, custom()) == codes(fresh, custom())
    assert len(wiped) == 1


def test_a_row_that_an_overflowed_idle_row_wrote_is_wiped_too(custom_voice: Path) -> None:
    """A newcomer that waits with its prompt half read is an idle row below a running one, and writes its next row."""
    engine = tiny_engine(custom_voice, slots=2, dtype=torch.float16)
    leaving, staying = engine.add(custom(max_frames=99)), engine.add(custom(max_frames=99))
    while not staying.frames:
        engine.step()
    engine.cancel(leaving)
    bad = engine.add(overflowing(engine))
    engine.step()
    pace = engine._scheduler.pace = Pace(lambda: 0.0)
    pace.can_read = lambda rows, headroom: False  # type: ignore[method-assign]
    engine.step()
    assert (bad.slot, staying.slot) == (0, 1)
    kv = engine._runner.pools.kv
    assert not kv[:, :, 0, bad.rows_read].isfinite().all()
    engine.cancel(bad)
    engine.step()
    assert kv.isfinite().all()


def test_rows_that_were_not_written_are_not_wiped(custom_voice: Path) -> None:
    """Wiping commits memory that the operating system has not committed before."""
    engine = tiny_engine(custom_voice, slots=1, dtype=torch.float16)
    sequence = engine.add(overflowing(engine))
    rows = len(sequence.layout)
    kv = engine._runner.pools.kv
    kv[:, :, :, rows + 1 :] = 7
    drain(engine)
    assert (sequence.finish_reason, sequence.frames) == ("failed", [])
    assert not kv[:, :, :, : rows + 1].any()
    assert (kv[:, :, :, rows + 1 :] == 7).all()


def test_stop_ends_everyone_and_refuses_the_next(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice, slots=1)
    running, waiting = engine.add(custom()), engine.add(custom())
    engine.step()
    engine.stop()
    assert {running.finish_reason, waiting.finish_reason} == {"cancelled"}
    with pytest.raises(EngineStopped):
        engine.add(custom())
    assert_as_fresh(engine)
