"""Text that is still being written: what is spoken is what the whole text gives, wherever it pauses."""

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qwen_tts.engine.engine import Engine
from qwen_tts.engine.pace import Pace
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped, InvalidRequest
from qwen_tts.request import ClonedVoice, FinishReason, SpeechRequest
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.engine.test_engine import REQUESTS, fill_with_garbage
from tests.qwen_tts.tiny import NEVER, TINY, codes, custom, drain, speak, tiny_engine

# Of 128 codes one in some twenty frames ends the utterance.
SOMETIMES = 3.0
TEXT = "Hi, you there. 你好吗? It's 12\u0301 now"
End = tuple[list[Frame], FinishReason | None]


class Writer:
    """Writes a text into an engine, character by character."""

    def __init__(self, engine: Engine, request: SpeechRequest) -> None:
        self.engine = engine
        self.rest = request.text[1:]
        self.text = engine.live_text(dataclasses.replace(request, text=request.text[0]))
        self.sequence: Sequence | None = None

    def write(self, count: int = 1) -> None:
        """The next characters, or the end of the text after them."""
        if self.text.ended:
            return
        if self.rest:
            self.text.append(self.rest[:count])
            self.rest = self.rest[count:]
        else:
            self.text.end()
        if self.sequence is None and self.text.ready():
            self.sequence = self.engine.add_live(self.text)

    def end(self) -> End:
        while not self.text.ended:
            self.write()
            drain(self.engine)
        drain(self.engine)
        assert self.sequence is not None
        return self.sequence.frames, self.sequence.finish_reason


def whole(checkpoint: Path, request: SpeechRequest, eos_bias: float = SOMETIMES) -> End:
    streaming = dataclasses.replace(request, text_layout="streaming")
    (sequence,) = speak(tiny_engine(checkpoint, slots=1, positions=512, eos_bias=eos_bias), streaming)
    return sequence.frames, sequence.finish_reason


@pytest.mark.parametrize("max_frames", [None, 60, 5])
@pytest.mark.parametrize("eos_bias", [SOMETIMES, NEVER])
def test_character_by_character_is_all_at_once(custom_voice: Path, eos_bias: float, max_frames: int | None) -> None:
    """To its end of speech, or to the length that its text allows, which is known last."""
    request = custom(TEXT, seed=3, max_frames=max_frames, instructions="Slowly.", language="english")
    engine = tiny_engine(custom_voice, positions=512, eos_bias=eos_bias)
    assert Writer(engine, request).end() == whole(custom_voice, request, eos_bias)
    assert engine.idle


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_pauses_anywhere_change_nothing(custom_voice: Path, steps: int, neighbours: bool) -> None:
    """Between two characters nothing, or some steps in which it may pause while rows above it and below go on."""
    request = custom(TEXT, seed=3, max_frames=60)
    engine = tiny_engine(custom_voice, eos_bias=NEVER)
    fill_with_garbage(engine)
    others = [custom(f"Number {seed}.", seed=seed, max_frames=150 - 20 * seed) for seed in range(1, 4)]
    sequences = [engine.add(others[0])] if neighbours else []
    for _ in range(5):
        engine.step()
    writer = Writer(engine, request)
    while not writer.text.ended:
        writer.write()
        for _ in range(steps):
            engine.step()
        if neighbours and writer.sequence is not None and len(sequences) < 3:
            sequences.append(engine.add(others[len(sequences)]))
    assert writer.end() == whole(custom_voice, request, NEVER)
    for sequence, other in zip(sequences, others, strict=False):
        assert sequence.frames == codes(tiny_engine(custom_voice), other)


@pytest.mark.parametrize("seed", range(4))
def test_many_texts_at_once_at_random(custom_voice: Path, seed: int) -> None:
    rng = random.Random(seed)
    engine = tiny_engine(custom_voice, slots=5, eos_bias=SOMETIMES)
    fill_with_garbage(engine)
    texts = [dataclasses.replace(request, text=TEXT[: rng.randint(1, len(TEXT))]) for request in REQUESTS]
    writers = [Writer(engine, request) for request in texts[:4]]
    fixed = [engine.add(request) for request in REQUESTS[4:]]
    for _ in range(150):
        rng.choice(writers).write(rng.randint(1, 4))
        engine.step()
    for writer, request in zip(writers, texts, strict=False):
        assert writer.end() == whole(custom_voice, request)
    drain(engine)
    for sequence, request in zip(fixed, REQUESTS[4:], strict=True):
        (alone,) = speak(tiny_engine(custom_voice, slots=1, eos_bias=SOMETIMES), request)
        assert (sequence.frames, sequence.finish_reason) == (alone.frames, alone.finish_reason)
    assert engine._scheduler.free_slots == 5


def test_it_speaks_with_the_first_token_and_pauses_after_it(custom_voice: Path) -> None:
    """These are one row each, and at once certain; the first is in the prompt, the second enters decode step 0."""
    engine = tiny_engine(custom_voice)
    writer = Writer(engine, custom("!?;", layout="streaming", max_frames=30))
    assert writer.text.ready()
    sequence = writer.sequence = engine.add_live(writer.text)
    drain(engine)
    assert (len(sequence.frames), sequence.paused, engine.running) == (1, True, 1)
    assert engine.step() == (), "nothing to do"
    writer.write()
    drain(engine)
    assert len(sequence.frames) == 2
    writer.write(5)
    drain(engine)
    assert (len(sequence.frames), sequence.finished) == (3, False)
    writer.write()
    drain(engine)
    assert (len(sequence.frames), sequence.finish_reason) == (30, "length")


@pytest.mark.parametrize(
    "frames", [1, 9, 60], ids=["shorter than its text", "as the text grows", "longer than all text"]
)
def test_a_clone_with_a_reference_begins_when_its_frames_have_text(base: Path, frames: int) -> None:
    ref_codes = np.random.default_rng(1).integers(0, TINY.codebook, (frames, TINY.groups)).astype(np.int16)
    embedding = np.full(TINY.hidden, 0.1, dtype=np.float32)
    voice = ClonedVoice(VoicePrompt(embedding, ref_codes, "Words."))
    request = SpeechRequest("And these follow.", voice, text_layout="streaming", seed=5, max_frames=40)
    engine = tiny_engine(base)
    writer = Writer(engine, request)
    begun = []
    while not writer.text.ended:
        begun.append(writer.sequence is not None)
        writer.write()
        drain(engine)
    assert sum(not one for one in begun) == {1: 1, 9: 5, 60: len(begun)}[frames]
    assert writer.end() == whole(base, request, NEVER)


@pytest.mark.parametrize("when", ["cancel", "stop"])
def test_a_paused_one_can_be_given_up(custom_voice: Path, when: str) -> None:
    engine = tiny_engine(custom_voice, slots=1)
    writer = Writer(engine, custom("Hello", max_frames=30))
    writer.write(9)
    drain(engine)
    assert writer.sequence is not None
    assert writer.sequence.paused
    if when == "stop":
        engine.stop()
        with pytest.raises(EngineStopped):
            engine.add_live(writer.text)
    else:
        waiting = engine.add(custom())
        assert engine.idle, "there is no slot for it"
        engine.cancel(writer.sequence)
        assert not engine.idle
        drain(engine)
        assert waiting.frames == codes(tiny_engine(custom_voice), custom())
    assert writer.sequence.finish_reason == "cancelled"
    assert engine._scheduler.free_slots == 1


def test_a_paused_one_does_not_keep_others_waiting(custom_voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what a step of the two takes is not known, and cannot be while it pauses."""
    monkeypatch.setattr("qwen_tts.engine.engine.time", SimpleNamespace(monotonic=lambda: 0.0))  # this machine keeps up
    engine = tiny_engine(custom_voice, slots=3)
    engine._scheduler.pace = Pace(lambda: 0.0)
    writer = Writer(engine, custom("Hello", max_frames=30))
    writer.write(9)
    drain(engine)
    others = [engine.add(custom(seed=seed, max_frames=20)) for seed in (1, 2)]
    drain(engine)
    assert [other.frames for other in others] == [
        codes(tiny_engine(custom_voice), custom(seed=seed, max_frames=20)) for seed in (1, 2)
    ]
    assert writer.end() == whole(custom_voice, custom("Hello", max_frames=30), NEVER)


def test_text_beyond_the_room_is_refused_where_the_whole_is(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice, positions=64)
    longest = next(n for n in range(99, 0, -1) if fits(engine, "x" * n))
    writer = Writer(engine, custom("x" * longest))
    assert writer.end() == whole_of(custom_voice, "x" * longest)
    assert writer.end()[1] == "length"
    writer = Writer(engine, custom("x" * (longest + 1)))
    with pytest.raises(InvalidRequest, match="the model has room for 62 rows") as caught:
        writer.end()
    assert (caught.value.param, caught.value.code) == ("input", "input_too_long")
    with pytest.raises(InvalidRequest, match="more than 4096 characters"):
        engine.live_text(custom("x")).append("y" * 4096)


def fits(engine: Engine, text: str) -> bool:
    try:
        engine.prepare(custom(text, layout="streaming"))
    except InvalidRequest:
        return False
    return True


def whole_of(checkpoint: Path, text: str) -> End:
    (sequence,) = speak(tiny_engine(checkpoint, positions=64), custom(text, layout="streaming"))
    return sequence.frames, sequence.finish_reason


def test_what_cannot_be_spoken_is_refused_at_once(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        engine.live_text(custom(speaker="nobody"))
    with pytest.raises(InvalidRequest, match="half of a surrogate pair"):
        engine.live_text(custom()).append("\ud83d")
