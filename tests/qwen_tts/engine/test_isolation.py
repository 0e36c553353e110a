"""A request that cannot be computed fails alone. All others get the codes that they get without it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qwen_tts.engine.engine import Engine
from qwen_tts.engine.scheduler import Plan
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped, RequestFailed
from qwen_tts.request import ClonedVoice, SpeechRequest
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.engine.test_engine_cancel import assert_as_fresh
from tests.qwen_tts.tiny import TINY, codes, custom, drain, speak, tiny_engine

POISON = 666
SLOTS = 8
FRAMES = 12


def requests(poison_at: int) -> list[SpeechRequest]:
    """Requests for every slot. The one at `poison_at` is recognised by its seed."""
    seeds = [POISON if index == poison_at else index for index in range(SLOTS)]
    return [
        # A strong penalty, so that a code that is wrongly noted as seen changes the codes after it.
        replace(custom(f"Number {index}.", seed=seed, max_frames=FRAMES), repetition_penalty=1.5)
        for index, seed in enumerate(seeds)
    ]


def poison(engine: Engine, part: str, frame: int) -> list[int]:
    """Let `part` of a step raise after its work if the poisoned sequence is in it and has `frame` frames.

    Return a list that gets the number of poisoned calls.
    """
    runner, failed = engine._runner, []
    work = getattr(runner, part)

    def poisoned(target: "Plan | Sequence | tuple[Sequence, ...]", *rest: object) -> "Tensor | None":
        done: Tensor | None = work(target, *rest)
        match target:
            case Plan():
                sequences = target.running
            case Sequence():
                sequences = (target,)
            case _:
                sequences = target
        if any(one.request.seed == POISON and len(one.frames) == frame for one in sequences):
            failed.append(len(sequences))
            raise ArithmeticError("poison")
        return done

    setattr(runner, part, poisoned)
    return failed


@pytest.fixture(scope="module")
def alone(custom_voice: Path) -> list[list[Frame]]:
    return [codes(tiny_engine(custom_voice), request) for request in requests(-1)]


def assert_only_the_poisoned_one_failed(
    sequences: list[Sequence], at: int, frames: int, alone: list[list[Frame]]
) -> None:
    failed = sequences[at]
    assert (failed.finish_reason, len(failed.frames), failed.slot) == ("failed", frames, None)
    assert isinstance(failed.failure, RequestFailed)
    for index, sequence in enumerate(sequences):
        if index != at:
            assert (sequence.finish_reason, sequence.frames, sequence.failure) == ("length", alone[index], None)


@pytest.mark.parametrize("at", [0, 3, SLOTS - 1], ids=["the first", "in the middle", "the last"])
@pytest.mark.parametrize(
    ("part", "frame"), [("_prefill", 0), ("_draw", 0), ("_decode", 1), ("_decode", 5), ("_draw", 5)]
)
def test_a_step_that_raises_fails_the_request_at_fault_alone(
    custom_voice: Path, alone: list[list[Frame]], part: str, frame: int, at: int
) -> None:
    engine = tiny_engine(custom_voice, slots=SLOTS)
    calls = poison(engine, part, frame)
    sequences = speak(engine, *requests(at))
    assert_only_the_poisoned_one_failed(sequences, at, frame, alone)
    assert calls[-1] == 1, "it has not been tried alone"
    assert_as_fresh(engine)
    assert codes(engine, requests(-1)[0]) == alone[0], "the slot has something left of the request that failed"


def test_requests_fail_one_after_the_other_and_in_one_step(custom_voice: Path, alone: list[list[Frame]]) -> None:
    engine = tiny_engine(custom_voice, slots=SLOTS)
    poison(engine, "_draw", 5)
    poisoned = {1, 2, 6}
    spoken = [replace(one, seed=POISON) if index in poisoned else one for index, one in enumerate(requests(-1))]
    sequences = speak(engine, *spoken)
    assert [index for index, sequence in enumerate(sequences) if sequence.failure is not None] == sorted(poisoned)
    assert all(sequences[index].frames == alone[index] for index in range(SLOTS) if index not in poisoned)


def test_a_lone_request_that_fails_leaves_an_engine_that_works(custom_voice: Path, alone: list[list[Frame]]) -> None:
    engine = tiny_engine(custom_voice, slots=1)
    poison(engine, "_draw", 5)
    for _ in range(4):
        (sequence,) = speak(engine, requests(0)[0])
        assert (sequence.finish_reason, len(sequence.frames)) == ("failed", 5)
    assert codes(engine, requests(-1)[0]) == alone[0]


def test_a_paused_text_and_a_newcomer_are_not_at_fault(custom_voice: Path, alone: list[list[Frame]]) -> None:
    engine = tiny_engine(custom_voice, slots=3)
    text = engine.live_text(custom("Hello there", layout="streaming", max_frames=40))
    paused = engine.add_live(text)
    while not paused.paused:
        engine.step()
    said = len(paused.frames)
    poison(engine, "_decode", 3)
    bad = engine.add(requests(0)[0])
    while not bad.frames:
        engine.step()
    newcomer = engine.add(requests(-1)[1])
    while not bad.finished:
        engine.step()
    assert (bad.finish_reason, len(paused.frames)) == ("failed", said)
    text.end()
    drain(engine)
    assert newcomer.frames == alone[1]
    assert 0 < said < len(paused.frames)
    assert paused.frames == codes(tiny_engine(custom_voice), text.request)


@pytest.mark.parametrize("frame", [0, 4])
def test_resumed_requests_are_not_at_fault(custom_voice: Path, alone: list[list[Frame]], frame: int) -> None:
    engine = tiny_engine(custom_voice, slots=SLOTS)
    poison(engine, "_draw", frame)
    bad = engine.add(requests(0)[0])
    resumed = [engine.add(requests(-1)[index], alone[index][:7]) for index in range(1, SLOTS)]
    drain(engine)
    assert (bad.finish_reason, len(bad.frames)) == ("failed", frame)
    assert [sequence.frames for sequence in resumed] == alone[1:]


def test_a_voice_that_is_not_finite_fails_alone(base: Path) -> None:
    rng = np.random.default_rng(0)
    voices = [VoicePrompt(rng.normal(size=TINY.hidden).astype(np.float32)) for _ in range(SLOTS)]
    spoken = [
        SpeechRequest("Hello there.", ClonedVoice(voice), seed=seed, max_frames=FRAMES)
        for seed, voice in enumerate(voices)
    ]
    expected = [codes(tiny_engine(base), request) for request in spoken]
    voices[5].speaker_embedding[3] = np.nan  # a VoicePrompt refuses it at first
    engine = tiny_engine(base, slots=SLOTS)
    sequences = speak(engine, *spoken)
    assert_only_the_poisoned_one_failed(sequences, 5, 0, expected)
    assert "not finite" in str(sequences[5].failure)
    assert engine._runner.pools.kv.isfinite().all()


@pytest.mark.parametrize("broken", ["raises", "not finite"])
def test_an_engine_that_cannot_compute_anything_ends_everyone(custom_voice: Path, broken: str) -> None:
    """No request is blamed for it, so that each of them may be sent to another engine."""
    engine = tiny_engine(custom_voice, slots=3)
    sequences = [engine.add(custom(seed=seed)) for seed in range(4)]
    for _ in range(5):
        engine.step()
    if broken == "raises":

        def lost(*_: object) -> Tensor:
            raise RuntimeError("device lost")

        engine._runner._passes.read_prompt = lost  # type: ignore[assignment,method-assign]
        engine._runner._passes.decode = lost  # type: ignore[assignment,method-assign]
    else:
        engine._runner.talker.model.norm.weight.fill_(torch.nan)
    with pytest.raises((RuntimeError, EngineStopped), match=r"device lost|whatever the request"):
        engine.step()
    assert [sequence.finish_reason for sequence in sequences] == ["cancelled"] * 4
    assert all(sequence.failure is None for sequence in sequences)


def test_a_step_without_sequences_that_raises_ends_everyone(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)

    def lost(plan: Plan) -> dict[int, Frame | None]:
        raise RuntimeError("device lost")

    engine._runner.run = lost  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="device lost"):
        engine.step()
