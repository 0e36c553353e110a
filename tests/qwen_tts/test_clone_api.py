"""Cloning in the library: references and prompts in every form, streamed and whole, and what is refused."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_tts import InvalidRequest, Qwen3TTSModel, VoicePrompt
from qwen_tts.api import GenerationOptions
from qwen_tts.audio import Samples
from tests.parity.reference_clips import CLIPS
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, TOLERANCE
from tests.qwen_tts.test_api import load
from tests.qwen_tts.tiny import TINY
from tests.recordings import wav

SHORT: GenerationOptions = {"max_new_tokens": 6, "seed": 1}
WAV = wav("high")
LOW, HIGH = ((CLIPS[name].samples(), CLIPS[name].sample_rate_hz) for name in ("low", "high"))
WORDS = "The words spoken."


@pytest.fixture(scope="module")
def model(base: Path) -> Qwen3TTSModel:
    return load(base)


def clone(model: Qwen3TTSModel, text: str = "Hello there.", **arguments: Any) -> Samples:
    options: dict[str, Any] = {**SHORT, **arguments}
    (samples,), rate_hz = model.generate_voice_clone(text, **options)
    assert (rate_hz, samples.shape) == (24000, (6 * FRAME_SAMPLES,))
    return samples


def close(one: Samples, other: Samples) -> bool:
    return bool(np.abs(one - other).max() <= TOLERANCE)


def test_every_form_of_a_reference_is_the_same_voice(model: Qwen3TTSModel, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(WAV)
    text = base64.b64encode(WAV).decode()
    expected = clone(model, ref_audio=str(path), ref_text=WORDS)
    for source in (path, text, f"data:audio/wav;base64,{text}"):
        assert close(clone(model, ref_audio=source, ref_text=WORDS), expected)
    assert not close(clone(model, ref_audio=LOW, ref_text=WORDS), expected), "another voice is another sound"
    assert not close(clone(model, ref_audio=str(path), ref_text="Other words."), expected)
    assert not close(clone(model, ref_audio=str(path), x_vector_only_mode=True), expected)


@pytest.mark.parametrize("x_vector", [False, True], ids=["icl", "x-vector"])
@pytest.mark.parametrize("whole_text", [False, True])
def test_a_prompt_made_before_is_as_good_as_the_recording(
    model: Qwen3TTSModel, x_vector: bool, whole_text: bool, tmp_path: Path
) -> None:
    words = None if x_vector else WORDS
    layout: dict[str, Any] = {"non_streaming_mode": whole_text}
    expected = clone(model, ref_audio=HIGH, ref_text=words, x_vector_only_mode=x_vector, **layout)
    items = model.create_voice_clone_prompt(HIGH, words, x_vector)
    items[0].to_voice_prompt().save(tmp_path / "voice.safetensors")
    for prompt in (items, items[0].to_voice_prompt(), VoicePrompt.load(tmp_path / "voice.safetensors")):
        assert close(clone(model, voice_clone_prompt=prompt, **layout), expected)


def test_streamed_is_whole(model: Qwen3TTSModel) -> None:
    modes: list[dict[str, Any]] = [{"ref_text": WORDS}, {"x_vector_only_mode": True}]
    for arguments in modes:
        pieces = list(model.stream_voice_clone("Hello there.", ref_audio=HIGH, **SHORT, **arguments))
        assert len(pieces) > 1
        assert close(np.concatenate([samples for samples, _ in pieces]), clone(model, ref_audio=HIGH, **arguments))


def test_a_batch_is_its_singles(model: Qwen3TTSModel) -> None:
    texts, references, words = ["One.", "Two and three."], [LOW, HIGH], ["Low words.", "High words."]
    together, _ = model.generate_voice_clone(texts, ref_audio=list(references), ref_text=list(words), **SHORT)
    for text, reference, spoken, samples in zip(texts, references, words, together, strict=True):
        assert close(clone(model, text, ref_audio=reference, ref_text=spoken), samples)
    mixed, _ = model.generate_voice_clone(
        texts, ref_audio=list(references), ref_text=["Low words.", None], x_vector_only_mode=[False, True], **SHORT
    )
    assert close(mixed[0], together[0])
    assert close(mixed[1], clone(model, texts[1], ref_audio=HIGH, x_vector_only_mode=True))


def test_one_reference_serves_all_texts_and_one_word_list_all_references(model: Qwen3TTSModel) -> None:
    spread, _ = model.generate_voice_clone(["One.", "Two."], ref_audio=HIGH, ref_text=WORDS, **SHORT)
    assert close(spread[1], clone(model, "Two.", ref_audio=HIGH, ref_text=WORDS))
    items = model.create_voice_clone_prompt([LOW, HIGH], WORDS)
    assert [item.ref_text for item in items] == [WORDS, WORDS]
    items = model.create_voice_clone_prompt([LOW, HIGH], x_vector_only_mode=True)
    assert [item.x_vector_only_mode for item in items] == [True, True]
    assert [item.ref_code for item in items] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "ref_audio"),
        ({"ref_audio": []}, "ref_audio"),
        ({"ref_audio": HIGH}, "ref_text"),
        ({"ref_audio": HIGH, "ref_text": 5}, "ref_text"),
        ({"ref_audio": HIGH, "ref_text": " "}, "ref_text"),
        ({"ref_audio": [HIGH, LOW], "ref_text": [WORDS] * 3}, "ref_text"),
        ({"ref_audio": [HIGH, LOW], "ref_text": WORDS, "x_vector_only_mode": [True] * 3}, "x_vector_only_mode"),
        ({"ref_audio": [HIGH, LOW], "ref_text": WORDS}, "voice_clone_prompt"),
        ({"ref_audio": (HIGH[0][:1000], 24000), "ref_text": WORDS}, "ref_audio"),
        ({"ref_audio": "nowhere.wav", "ref_text": WORDS}, "ref_audio"),
        ({"voice_clone_prompt": []}, "voice_clone_prompt"),
        ({"voice_clone_prompt": ["anna"]}, "voice_clone_prompt"),
    ],
)
def test_what_is_refused(model: Qwen3TTSModel, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        model.generate_voice_clone("Hello.", **arguments)
    assert caught.value.param == param, caught.value.message


def prompt(width: int = TINY.hidden, groups: int = TINY.groups, code: int = 0) -> VoicePrompt:
    return VoicePrompt(np.zeros(width, np.float32), np.full((3, groups), code, np.int16), WORDS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (prompt(width=2048), f"another model: its speaker embedding has 2048 numbers, .* needs {TINY.hidden}"),
        (prompt(groups=16), f"another codec: its frames have 16 codes .* needs {TINY.groups}"),
        (prompt(code=TINY.codebook), f"another codec: .* up to {TINY.codebook}, .* below {TINY.codebook}"),
    ],
)
def test_a_prompt_of_another_model_says_so(model: Qwen3TTSModel, given: VoicePrompt, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        model.generate_voice_clone("Hello.", voice_clone_prompt=given)
    assert caught.value.code == "voice_of_another_model"


def test_models_of_other_types_do_not_clone(custom_voice: Path) -> None:
    model = Qwen3TTSModel.from_pretrained(str(custom_voice))
    ways: list[dict[str, Any]] = [{"ref_audio": HIGH, "ref_text": WORDS}, {"voice_clone_prompt": prompt()}]
    for arguments in ways:
        with pytest.raises(InvalidRequest, match="'custom_voice' and cannot clone a voice; a model of type 'base' can"):
            model.generate_voice_clone("Hello.", **arguments)
