"""What from_pretrained refuses, and how it says so."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qwen_tts import CheckpointError, Qwen3TTSModel, UnsupportedError


@pytest.mark.parametrize(
    ("from_pretrained", "says"),
    [
        (lambda path: Qwen3TTSModel.from_pretrained(path, device_map="warp"), "'warp' is not supported; choose 'cpu'"),
        (lambda path: Qwen3TTSModel.from_pretrained(path, dtype="int8"), "'int8' is not supported; choose float32"),
        (lambda path: Qwen3TTSModel.from_pretrained(path, dtype=torch.float64), "float64 is not supported"),
        (
            lambda path: Qwen3TTSModel.from_pretrained(path, attn_implementation="eager"),
            "'eager' is unknown; choose 'sdpa' or 'flash_attention_2'",
        ),
        (
            lambda path: Qwen3TTSModel.from_pretrained(path, attn_implementation="flash_attention_2"),
            "'flash_attention_2' needs a CUDA device, not cpu",
        ),
    ],
)
def test_what_this_machine_cannot_do(
    custom_voice: Path, from_pretrained: Callable[[str], Qwen3TTSModel], says: str
) -> None:
    with pytest.raises(UnsupportedError, match=says):
        from_pretrained(str(custom_voice))


def test_cuda_is_asked_for_in_vain(custom_voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        Qwen3TTSModel.from_pretrained(str(custom_voice), device_map="cuda:0")
    model = Qwen3TTSModel.from_pretrained(str(custom_voice), device_map="auto")
    assert model._device == torch.device("cpu")


def test_a_number_is_a_gpu(custom_voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnsupportedError, match="'cuda:0': this machine has no CUDA device"):
        Qwen3TTSModel.from_pretrained(str(custom_voice), device_map=0)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        Qwen3TTSModel.from_pretrained(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="nobody-of-this-name"):
        Qwen3TTSModel.from_pretrained("~nobody-of-this-name/checkpoint")


def test_defaults_no_request_may_ask_for_are_named(custom_voice: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(custom_voice, directory)
    for defaults, says in (
        ('{"temperature": 3.0}', "temperature is 3.0"),
        ('{"max_new_tokens": 0}', "max_new_tokens is 0"),
    ):
        (directory / "generation_config.json").write_text(defaults)
        with pytest.raises(CheckpointError, match=rf"generation_config\.json: {says}"):
            Qwen3TTSModel.from_pretrained(str(directory))


def test_a_vocabulary_beyond_the_embedding_is_named(custom_voice: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(custom_voice, directory)
    vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["zebra"] = 10**6
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has id 1000000, above text_vocab_size"):
        Qwen3TTSModel.from_pretrained(str(directory))


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_never_opened(custom_voice: Path, tmp_path: Path) -> None:
    """A checkpoint from a stranger may bring one beside its safetensors file, or in its place."""
    directory, mark = tmp_path / "checkpoint", tmp_path / "mark"
    shutil.copytree(custom_voice, directory)
    trap = pickle.dumps(Trap(mark))
    for name in ("pytorch_model.bin", "model.bin", "speech_tokenizer/pytorch_model.bin"):
        (directory / name).write_bytes(trap)
    Qwen3TTSModel.from_pretrained(str(directory))
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        Qwen3TTSModel.from_pretrained(str(directory))
    (directory / "model.safetensors").write_bytes(trap)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Qwen3TTSModel.from_pretrained(str(directory))
    assert not mark.exists()
    pickle.loads(trap)
    assert mark.exists(), "the trap works"
