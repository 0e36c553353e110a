"""Finding a checkpoint, and loading it strictly: every fault is a CheckpointError that names the file or tensor."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qwen_tts import checkpoint
from qwen_tts.checkpoint import DTYPES, load_weights, resolve_checkpoint
from qwen_tts.config import read_model_config
from qwen_tts.errors import CheckpointError
from qwen_tts.layers import sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.seeded import JsonObject

CPU = torch.device("cpu")


class Pair(nn.Module):
    """One weight, one bias and an integer buffer, under names as a checkpoint has them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))


TENSORS = {
    "pair.inner.weight": torch.arange(6.0).view(3, 2),
    "pair.inner.bias": torch.arange(3.0),
    "pair.steps": torch.tensor([2**40]),
}


def load(
    file: Path, dtype: torch.dtype = torch.float32, prefix: str = "pair.", ignore: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    with torch.device("meta"):
        module = Pair()
    load_weights(module, file, device=CPU, dtype=dtype, prefix=prefix, ignore=ignore)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    return module.state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_files_with_and_without_metadata_load(file: Path, metadata: dict[str, str] | None) -> None:
    """The released Base models and the codec have no __metadata__, which some loaders insist on."""
    save_file(TENSORS, file, metadata=metadata)
    header = file.read_bytes()[8:]
    assert (b"__metadata__" in header) == (metadata is not None)
    loaded = load(file)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, TENSORS[f"pair.{name}"])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("stored", DTYPES.values(), ids=DTYPES.keys())
def test_floats_are_cast_and_integers_are_not(file: Path, stored: torch.dtype, dtype: torch.dtype) -> None:
    save_file({name: t.to(stored) if t.is_floating_point() else t for name, t in TENSORS.items()}, file)
    loaded = load(file, dtype)
    assert loaded["inner.weight"].dtype == loaded["inner.bias"].dtype == dtype
    assert torch.equal(loaded["inner.weight"].float(), TENSORS["pair.inner.weight"])
    assert loaded["steps"].tolist() == [2**40]


def test_every_missing_extra_and_misshapen_tensor_is_named(file: Path) -> None:
    save_file({"pair.inner.weight": torch.zeros(2, 3), "pair.steps": TENSORS["pair.steps"], "odd": torch.ones(1)}, file)
    with pytest.raises(CheckpointError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file} does not fit its config: missing pair.inner.bias [3]; extra odd [1]; "
        "shape of pair.inner.weight is [2, 3], config.json says [3, 2]"
    )


def test_a_long_list_of_faults_is_cut_and_counted(file: Path) -> None:
    save_file(TENSORS | {f"odd.{index}": torch.ones(1) for index in range(9)}, file)
    with pytest.raises(CheckpointError, match=r"extra odd\.0 .* extra odd\.4 \[1\]; and 4 more$"):
        load(file)


def test_tensors_of_another_module_are_left_alone(file: Path) -> None:
    save_file(TENSORS | {"speaker_encoder.fc.bias": torch.ones(1)}, file)
    assert load(file, ignore=("speaker_encoder.",)).keys() == {"inner.weight", "inner.bias", "steps"}
    with pytest.raises(CheckpointError, match=r"extra speaker_encoder\.fc\.bias"):
        load(file)


def _truncated(content: bytes) -> bytes:
    return content[:-5]


def _header_cut(content: bytes) -> bytes:
    return content[:20]


def _pickle(content: bytes) -> bytes:
    return b"\x80\x04\x95" + content


def _empty(content: bytes) -> bytes:
    return content[:0]


@pytest.mark.parametrize("damage", [_truncated, _header_cut, _pickle, _empty])
def test_a_damaged_file(file: Path, damage: Callable[[bytes], bytes]) -> None:
    save_file(TENSORS, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{file} is not a safetensors file"):
        load(file)


def test_a_missing_file(file: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{file} is missing"):
        load(file)


def test_a_directory_where_the_file_should_be(file: Path) -> None:
    file.mkdir()
    with pytest.raises(CheckpointError, match=str(file)):
        load(file)


def test_a_talker_loads_as_it_was_written(base: Path) -> None:
    """A Base checkpoint: the speaker encoder beside the talker is not a fault."""
    talker = load_talker(base, read_model_config(base), sdpa, CPU, torch.bfloat16)
    stored = load_file(base / "model.safetensors")
    for name, tensor in talker.state_dict().items():
        assert torch.equal(tensor, stored[f"talker.{name}"]), name


def test_a_config_of_another_size_names_the_tensors(custom_voice: Path, tmp_path: Path) -> None:
    raw: JsonObject = json.loads((custom_voice / "config.json").read_text())
    talker = raw["talker_config"]
    assert isinstance(talker, dict)
    talker["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "model.safetensors").symlink_to(custom_voice / "model.safetensors")
    extra = f"talker.model.layers.{talker['num_hidden_layers'] - 1}"
    with pytest.raises(CheckpointError, match=f"missing {extra}.* more$"):
        load_talker(tmp_path, read_model_config(tmp_path), sdpa, CPU, torch.float32)


def test_a_directory_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_checkpoint("~/model") == tmp_path / "model"


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "../model", "~/model", "a/b/c"])
def test_what_can_only_be_a_directory_is_not_looked_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(checkpoint, "snapshot_download", never)
    with pytest.raises(CheckpointError, match=f"checkpoint directory {name} does not exist"):
        resolve_checkpoint(name)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("cannot find an appropriate snapshot folder and outgoing traffic has been disabled"),
        RepositoryNotFoundError("404", response=httpx2.Response(404, request=httpx2.Request("GET", "https://hub"))),
        HFValidationError("Repo id must use alphanumeric chars"),
        httpx2.ProxyError("403 Forbidden"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_name_that_cannot_be_had(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr(checkpoint, "snapshot_download", fails)
    with pytest.raises(CheckpointError, match="'someone/model' is not a directory, and downloading"):
        resolve_checkpoint("someone/model")


def test_only_the_files_of_the_layout_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Repositories also carry pictures and, in copies, weights in other formats."""
    asked: dict[str, list[str]] = {}

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    assert resolve_checkpoint("someone/model") == tmp_path
    assert set(asked["someone/model"]) == {
        "*.json", "merges.txt", "model.safetensors",
        "speech_tokenizer/*.json", "speech_tokenizer/merges.txt", "speech_tokenizer/model.safetensors",
    }  # fmt: skip
    resolve_checkpoint("someone/codec", ["speech_tokenizer/*"])
    assert asked["someone/codec"] == ["speech_tokenizer/*"]


def test_a_hub_name_without_a_network_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, offline with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="'someone/model' is not a directory"):
        resolve_checkpoint("someone/model")
