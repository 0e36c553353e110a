"""A sequence that begins with frames of another engine goes on with the codes of the undisturbed one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from qwen_tts.engine.engine import Engine
from qwen_tts.errors import Overloaded
from qwen_tts.request import ClonedVoice, SpeechRequest
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.engine.test_engine import REQUESTS, SOMETIMES, End, fill_with_garbage
from tests.qwen_tts.tiny import NEVER, TINY, custom, drain, speak, tiny_engine


def undisturbed(checkpoint: Path, request: SpeechRequest, eos_bias: float = SOMETIMES) -> End:
    (sequence,) = speak(tiny_engine(checkpoint, slots=1, eos_bias=eos_bias), request)
    return sequence.frames, sequence.finish_reason


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.text[:12])
def test_it_goes_on_from_any_frame(custom_voice: Path, request_: SpeechRequest) -> None:
    """From its first frame to its last one, whose engine died before it could say that it was the last."""
    frames, reason = undisturbed(custom_voice, request_)
    engine = tiny_engine(custom_voice, slots=3, eos_bias=SOMETIMES)
    fill_with_garbage(engine)
    for count in range(1, len(frames) + 1):
        sequence = engine.add(request_, frames[:count])
        drain(engine)
        assert (sequence.frames, sequence.finish_reason) == (frames, reason), f"resumed at {count}"


@pytest.mark.parametrize("layout", ["whole", "streaming"])
@pytest.mark.parametrize("reference", [None, 50], ids=["x-vector", "reference"])
def test_a_clone_goes_on(base: Path, layout: str, reference: int | None) -> None:
    embedding = np.full(TINY.hidden, 0.1, dtype=np.float32)
    codes = None
    if reference is not None:
        codes = np.random.default_rng(1).integers(0, TINY.codebook, (reference, TINY.groups)).astype(np.int16)
    voice = ClonedVoice(VoicePrompt(embedding, codes, None if codes is None else "Words."))
    request = SpeechRequest("And these follow.", voice, text_layout=layout, seed=5, max_frames=70)  # type: ignore[arg-type]
    frames, reason = undisturbed(base, request, NEVER)
    engine = tiny_engine(base)
    for _ in range(2):  # the second time with the prefix in the cache
        sequence = engine.add(request, frames[:66])
        drain(engine)
        assert (sequence.frames, sequence.finish_reason) == (frames, reason)


def test_several_go_on_among_others(custom_voice: Path) -> None:
    ends = [undisturbed(custom_voice, request) for request in REQUESTS]
    engine = tiny_engine(custom_voice, slots=3, eos_bias=SOMETIMES)
    sequences = []
    for index, (request, (frames, _)) in enumerate(zip(REQUESTS, ends, strict=True)):
        sequences.append(engine.add(request, frames[: len(frames) // 2] if index % 2 else ()))
        engine.step()
    drain(engine)
    assert [(sequence.frames, sequence.finish_reason) for sequence in sequences] == ends


@pytest.mark.parametrize("count", [1, 7, 30, 60])
def test_a_live_text_goes_on_when_the_text_beside_its_frames_is_certain(custom_voice: Path, count: int) -> None:
    request = custom("Hi, you there. It's 12 now", seed=3, max_frames=60, layout="streaming")
    frames, reason = undisturbed(custom_voice, request, NEVER)
    engine = tiny_engine(custom_voice, eos_bias=NEVER)
    text = engine.live_text(dataclasses.replace(request, text=request.text[0]))
    sequence, rest = None, request.text[1:]
    while not text.ended:
        if rest:
            text.append(rest[0])
        else:
            text.end()
        rest = rest[1:]
        if sequence is None and text.ready(count):
            sequence = engine.add_live(text, frames[:count])
        drain(engine)
    drain(engine)
    assert sequence is not None
    assert (sequence.frames, sequence.finish_reason) == (frames, reason)


def full_engine(checkpoint: Path) -> Engine:
    engine = tiny_engine(checkpoint, slots=1, max_waiting=1)
    engine.add(custom(seed=1, max_frames=3))
    engine.step()
    engine.add(custom(seed=2))
    return engine


def test_it_is_never_refused_and_comes_before_newcomers(custom_voice: Path) -> None:
    frames, _ = undisturbed(custom_voice, custom(seed=3), NEVER)
    engine = full_engine(custom_voice)
    with pytest.raises(Overloaded):
        engine.add(custom(seed=3))
    resumed = engine.add(custom(seed=3), frames[:4])
    while not resumed.finished:
        engine.step()
    assert resumed.frames == frames
    assert engine.waiting == 1, "the newcomer was not passed"


def test_one_that_has_all_its_frames_ends_at_once(custom_voice: Path) -> None:
    frames, _ = undisturbed(custom_voice, custom(seed=3), NEVER)
    engine = full_engine(custom_voice)
    resumed = engine.add(custom(seed=3), frames)
    assert (resumed.frames, resumed.finish_reason, engine.waiting) == (frames, "length", 1)


def test_one_with_more_frames_than_this_engine_allows_ends_at_once(custom_voice: Path) -> None:
    """Its former talker had other settings."""
    request = custom(seed=3, max_frames=None)
    frames, _ = undisturbed(custom_voice, custom(seed=3, max_frames=12), NEVER)
    resumed = tiny_engine(custom_voice, max_frames=10).add(request, frames)
    assert (resumed.frames, resumed.finish_reason) == (frames, "length")
