"""Voice prompts and their files."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from qwen_tts.errors import InvalidRequest
from qwen_tts.voice import EncodedReference, VoicePrompt
from qwen_tts.voice_clone import VoiceClonePromptItem, to_item, to_prompts

RNG = np.random.default_rng(0)
EMBEDDING: NDArray[np.float32] = RNG.standard_normal(8).astype(np.float32)
CODES: NDArray[np.int16] = RNG.integers(0, 128, (5, 4)).astype(np.int16)
ICL = VoicePrompt(EMBEDDING, CODES, "Wörter, 词.", "ab12")
X_VECTOR = VoicePrompt(EMBEDDING, fingerprint="ab12")


def same(one: VoicePrompt, other: VoicePrompt) -> bool:
    return (
        np.array_equal(one.speaker_embedding, other.speaker_embedding)
        and one.speaker_embedding.dtype == other.speaker_embedding.dtype
        and (one.ref_codes is None) == (other.ref_codes is None)
        and (one.ref_codes is None or other.ref_codes is None or np.array_equal(one.ref_codes, other.ref_codes))
        and (one.ref_text, one.fingerprint) == (other.ref_text, other.fingerprint)
    )


@pytest.mark.parametrize("prompt", [ICL, X_VECTOR, VoicePrompt(EMBEDDING)], ids=["icl", "x-vector", "bare"])
def test_files(prompt: VoicePrompt, tmp_path: Path) -> None:
    assert same(VoicePrompt.from_bytes(prompt.to_bytes()), prompt)
    prompt.save(tmp_path / "voice.safetensors")
    assert same(VoicePrompt.load(tmp_path / "voice.safetensors"), prompt)
    with pytest.raises(OSError, match="nowhere"):
        VoicePrompt.load(tmp_path / "nowhere.safetensors")


def test_arrays_are_saved_as_they_read_however_they_lie() -> None:
    spaced = np.repeat(EMBEDDING, 2)
    embeddings: list[NDArray[Any]] = [spaced[::2], spaced.astype(np.float64)[::2]]
    code_arrays: list[NDArray[Any]] = [np.asfortranarray(CODES), CODES.astype(np.int64, order="F")]
    for embedding, codes in itertools.product(embeddings, code_arrays):
        lying = VoicePrompt(embedding, codes, ICL.ref_text, "ab12")
        assert same(VoicePrompt.from_bytes(lying.to_bytes()), ICL)


def header_with(metadata: object) -> bytes:
    """A file of EMBEDDING alone, written by hand: safetensors writes texts only."""
    tensor = {"dtype": "F32", "shape": list(EMBEDDING.shape), "data_offsets": [0, EMBEDDING.nbytes]}
    header = json.dumps({"__metadata__": metadata, "speaker_embedding": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + EMBEDDING.tobytes()


def test_metadata_of_other_writers() -> None:
    assert same(VoicePrompt.from_bytes(header_with(None)), VoicePrompt(EMBEDDING))
    assert same(VoicePrompt.from_bytes(header_with({"format": "pt"})), VoicePrompt(EMBEDDING))
    with pytest.raises(InvalidRequest, match="not a saved voice prompt"):
        VoicePrompt.from_bytes(header_with({"ref_text": 5}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a voice",
        ICL.to_bytes()[:-1],
        save({"ref_codes": CODES}, {"ref_text": "a"}),
        save({"speaker_embedding": CODES}),
        save({"speaker_embedding": EMBEDDING[None]}),
        save({"speaker_embedding": np.array([np.nan], np.float32)}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES[0]}, {"ref_text": "a"}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES[:0]}, {"ref_text": "a"}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES - 128}, {"ref_text": "a"}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES.astype(np.float32)}, {"ref_text": "a"}),
        save({"speaker_embedding": EMBEDDING, "ref_codes": CODES + np.int32(2**16)}, {"ref_text": "a"}),
    ],
    ids=[
        "empty", "text", "cut off", "no embedding", "integer embedding", "two axes", "nan", "no words", "one axis",
        "no frames", "negative codes", "float codes", "codes of 17 bits",
    ],
)  # fmt: skip
def test_what_is_no_voice_prompt(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        VoicePrompt.from_bytes(data)
    assert (caught.value.param, caught.value.code) == ("voice", "invalid_voice")


def test_an_encoded_reference_becomes_either_kind_of_prompt() -> None:
    reference = EncodedReference(EMBEDDING, CODES, "ab12")
    assert same(reference.icl_prompt("Wörter, 词."), ICL)
    assert same(reference.x_vector_prompt(), X_VECTOR)
    for words in ("", "  ", None, 5):
        with pytest.raises(InvalidRequest, match="x_vector_only_mode") as caught:
            reference.icl_prompt(words)  # type: ignore[arg-type]
        assert caught.value.param == "ref_text"


@pytest.mark.parametrize("prompt", [ICL, X_VECTOR], ids=["icl", "x-vector"])
def test_items_and_prompts_are_the_same_thing(prompt: VoicePrompt) -> None:
    item = to_item(prompt, prompt.ref_text)
    assert (item.icl_mode, item.x_vector_only_mode) == (prompt is ICL, prompt is X_VECTOR)
    assert same(item.to_voice_prompt(), prompt)
    for given in (item, [item], prompt, [prompt]):
        (back,) = to_prompts(given)
        assert same(back, prompt)


def test_items_as_the_reference_makes_them() -> None:
    """A batch axis on the embedding, a dtype of its own, positional fields."""
    item = VoiceClonePromptItem(torch.from_numpy(CODES).long(), torch.from_numpy(EMBEDDING)[None], False, True, "Words")
    assert same(item.to_voice_prompt(), VoicePrompt(EMBEDDING, CODES, "Words"))
    item = VoiceClonePromptItem(None, torch.from_numpy(EMBEDDING).bfloat16(), True, False)
    assert item.to_voice_prompt().speaker_embedding.dtype == np.float32


def test_the_references_dict_of_lists() -> None:
    columns: dict[str, list[Any]] = {
        "ref_code": [torch.from_numpy(CODES), None],
        "ref_spk_embedding": [torch.from_numpy(EMBEDDING)] * 2,
        "x_vector_only_mode": [False, True],
        "icl_mode": [True, False],
        "ref_text": ["Words", None],
    }
    first, second = to_prompts(columns)
    assert same(first, VoicePrompt(EMBEDDING, CODES, "Words"))
    assert same(second, VoicePrompt(EMBEDDING))
    broken_ones: list[dict[str, Any]] = [
        {},
        columns | {"ref_code": [None]},
        {"ref_code": [None]},
        columns | {"ref_code": None, "x_vector_only_mode": True},
        {"ref_spk_embedding": torch.from_numpy(EMBEDDING)},
    ]
    for broken in broken_ones:
        with pytest.raises(InvalidRequest, match="lists of one length"):
            to_prompts(broken)


@pytest.mark.parametrize("given", [["anna"], [None], [EMBEDDING], "anna", 5, EMBEDDING])
def test_other_things_are_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="create_voice_clone_prompt"):
        to_prompts(given)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"ref_spk_embedding": None}, "ref_spk_embedding"),
        ({"ref_spk_embedding": torch.full((8,), torch.nan)}, "speaker_embedding"),
        ({"ref_code": "codes"}, "ref_code"),
        ({"ref_code": torch.from_numpy(CODES) + 0.5}, "ref_audio"),
        ({"ref_code": torch.from_numpy(CODES).long() + 2**16}, "ref_audio"),
        ({"ref_text": None}, "ref_text"),
    ],
    ids=["no embedding", "nan", "text for codes", "float codes", "codes of 17 bits", "no words"],
)
def test_items_that_are_refused(change: dict[str, Any], param: str) -> None:
    """None of them becomes another voice by rounding or wrapping."""
    with pytest.raises(InvalidRequest) as caught:
        to_prompts(dataclasses.replace(to_item(ICL, "Words"), **change))
    assert caught.value.param == param
