"""Cloned voices against the reference's (PyPI qwen-tts 0.1.1), recorded by make_clone_goldens.py, in float32.

Speaker embeddings agree within 1e-5 of their scale, reference codes and greedy codes are equal, and the samples after
the reference's own are those of the reference implementation, cut exactly (ref_frames * 1920).
"""

import inspect
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_tts import Qwen3TTSModel, Qwen3TTSTokenizer, VoiceClonePromptItem
from qwen_tts.api import GenerationOptions
from tests.parity.reference_clips import CLIPS
from tests.parity.shapes import CHECKPOINTS
from tests.parity.test_reference import SIGNATURES, parameters

GOLDENS = Path(__file__).parent / "goldens" / "clone"
INDEX: dict[str, Any] = json.loads((GOLDENS / "index.json").read_text(encoding="utf-8"))
FRAME_SAMPLES = 1920
# The reference's tokens count the step after the last frame too.
GREEDY: GenerationOptions = {
    "do_sample": False,
    "subtalker_dosample": False,
    "max_new_tokens": INDEX["generation"]["max_new_tokens"] - 1,
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parity")
    for name in INDEX["checkpoints"]:
        CHECKPOINTS[name].write(root / name)
    return {name: root / name for name in INDEX["checkpoints"]}


@pytest.fixture(scope="module")
def models(directories: dict[str, Path]) -> dict[str, Qwen3TTSModel]:
    return {name: Qwen3TTSModel.from_pretrained(str(path)) for name, path in directories.items()}


@pytest.fixture(scope="module")
def tokenizers(directories: dict[str, Path]) -> dict[str, Qwen3TTSTokenizer]:
    return {name: Qwen3TTSTokenizer.from_pretrained(str(path)) for name, path in directories.items()}


def prompt(model: Qwen3TTSModel, name: str, ref_text: str | None) -> VoiceClonePromptItem:
    clip = CLIPS[name]
    (item,) = model.create_voice_clone_prompt(
        (clip.samples(), clip.sample_rate_hz), ref_text, x_vector_only_mode=ref_text is None
    )
    return item


def spoken_codes(model: Qwen3TTSModel, **arguments: Any) -> list[NDArray[np.int64]]:
    """What generate_voice_clone says, as codes: seen on their way into the decoder."""
    sequences = []
    decode_whole = model._decode_whole

    def keep(sequence: Any) -> Any:
        sequences.append(sequence)
        return decode_whole(sequence)

    with patch.object(model, "_decode_whole", keep):
        model.generate_voice_clone(**arguments, **GREEDY)
    return [np.array(sequence.frames) for sequence in sequences]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("checkpoint", INDEX["checkpoints"])
def test_references(models: dict[str, Qwen3TTSModel], checkpoint: str, clip: str) -> None:
    golden = np.load(GOLDENS / f"{checkpoint}_refs.npz")
    item = prompt(models[checkpoint], clip, "words")
    assert item.ref_code is not None
    np.testing.assert_array_equal(item.ref_code.numpy(), golden[f"{clip}_codes"])
    expected = golden[f"{clip}_embedding"]
    assert expected.std() > 0.1, "an embedding of nothing would agree with anything"
    np.testing.assert_allclose(item.ref_spk_embedding.numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: str(case["name"]))
def test_greedy_codes_and_waveform(
    models: dict[str, Qwen3TTSModel], tokenizers: dict[str, Qwen3TTSTokenizer], case: dict[str, Any]
) -> None:
    golden = np.load(GOLDENS / f"{case['name']}.npz")
    model = models[case["checkpoint"]]
    item = prompt(model, case["clip"], case["ref_text"])
    arguments = {
        "text": case["text"],
        "language": case["language"],
        "voice_clone_prompt": [item],
        "non_streaming_mode": case["non_streaming_mode"],
    }
    (codes,) = spoken_codes(model, **arguments)
    np.testing.assert_array_equal(codes, golden["codes"])
    assert len(codes) >= 64

    # Both as the reference decodes them, in one piece, and cut where the reference recording ends.
    (samples,), _ = model.generate_voice_clone(**arguments, **GREEDY)
    cut, stride = case["reference_frames"] * FRAME_SAMPLES, INDEX["stride"]
    assert len(samples) == case["frames"] * FRAME_SAMPLES
    kept = np.arange(0, cut + len(samples), stride)
    after = kept >= cut
    np.testing.assert_allclose(samples[kept[after] - cut], golden["samples"][after], atol=3e-6, rtol=0)
    if item.ref_code is not None:
        whole = np.concatenate([item.ref_code.numpy(), codes])
        (decoded,), _ = tokenizers[case["checkpoint"]].decode({"audio_codes": whole})
        np.testing.assert_allclose(decoded[::stride], golden["samples"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("batch", INDEX["batches"], ids=lambda batch: str(batch["name"]))
def test_a_batch_of_references(models: dict[str, Qwen3TTSModel], batch: dict[str, Any]) -> None:
    golden = np.load(GOLDENS / f"{batch['name']}.npz")
    clips = [CLIPS[name] for name in ("low", "high")]
    codes = spoken_codes(
        models[batch["checkpoint"]],
        text=batch["texts"],
        ref_audio=[(clip.samples()[: batch["clip_samples"]], clip.sample_rate_hz) for clip in clips],
        ref_text=batch["ref_texts"],
        non_streaming_mode=batch["non_streaming_mode"],
    )
    assert len(codes) == 2
    for index, one in enumerate(codes):
        np.testing.assert_array_equal(one, golden[str(index)])


@pytest.mark.parametrize("method", ["generate_voice_clone", "create_voice_clone_prompt"])
def test_signatures_of_the_model(method: str) -> None:
    assert parameters(getattr(Qwen3TTSModel, method)) == SIGNATURES["Qwen3TTSModel"][method]


def test_signatures_of_the_tokenizer() -> None:
    for method, expected in SIGNATURES["Qwen3TTSTokenizer"].items():
        if method != "from_pretrained":  # ours names what the reference passes through **kwargs
            assert parameters(getattr(Qwen3TTSTokenizer, method)) == expected, method
    assert inspect.signature(Qwen3TTSTokenizer.from_pretrained)
