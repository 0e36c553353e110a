"""Seeded checkpoints: the same bytes for the same seed, complete or not there, and stored as the released ones are."""

import json
import struct
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from qwen_tts import seeded
from qwen_tts.config import GenerationDefaults, read_generation_defaults
from qwen_tts.seeded import write_checkpoint
from tests.qwen_tts.tiny import TINY

FILES = {
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
    "speech_tokenizer/config.json",
    "speech_tokenizer/preprocessor_config.json",
    "speech_tokenizer/model.safetensors",
}


def contents(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def dtypes(file: Path) -> set[str]:
    """From the header of a safetensors file: its length in eight bytes, then JSON."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def test_same_seed_same_bytes(custom_voice: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "again", TINY, "custom_voice")
    assert contents(tmp_path / "again") == contents(custom_voice)
    assert contents(custom_voice).keys() == FILES


def test_another_seed_changes_weights_and_nothing_else(custom_voice: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", TINY, "custom_voice", seed=1)
    first, second = contents(custom_voice), contents(tmp_path / "other")
    differing = {name for name in FILES if first[name] != second[name]}
    assert differing == {"model.safetensors", "speech_tokenizer/model.safetensors"}


def test_weights_are_stored_in_the_released_dtypes(base: Path) -> None:
    assert dtypes(base / "model.safetensors") == {"BF16"}
    assert dtypes(base / "speech_tokenizer" / "model.safetensors") == {"F32"}


def test_generation_defaults_are_the_released_ones(custom_voice: Path) -> None:
    assert read_generation_defaults(custom_voice) == GenerationDefaults(
        do_sample=True,
        temperature=0.9,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.05,
        subtalker_dosample=True,
        subtalker_temperature=0.9,
        subtalker_top_k=50,
        subtalker_top_p=1.0,
        max_new_tokens=8192,
    )


def test_existing_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "precious").write_text("data")
    with pytest.raises(FileExistsError, match="mine already exists"):
        write_checkpoint(directory, TINY, "custom_voice")
    assert contents(directory) == {"precious": b"data"}


def test_interrupted_writing_leaves_no_checkpoint(
    custom_voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the last file is written; with room again, the next attempt succeeds."""
    directory = tmp_path / "deep" / "checkpoint"

    def full_disk(tensors: dict[str, Tensor], path: Path) -> None:
        if path.parent.name == "speech_tokenizer":
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(seeded, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(directory, TINY, "custom_voice")
    assert not directory.exists()

    write_checkpoint(directory, TINY, "custom_voice")
    assert contents(directory) == contents(custom_voice)
    assert list(directory.parent.iterdir()) == [directory], "nothing of the first attempt is left"
