"""The package's checkpoints: stored once, opened in the released layout."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from safetensors import safe_open

from qwen_tts import embedded
from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE
from qwen_tts.config import MODEL_TYPES, ModelType, read_model_config
from qwen_tts.embedded import DIRECTORIES, assembled_checkpoint, embedded_checkpoint
from qwen_tts.errors import CheckpointError
from qwen_tts.layers import sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.speaker_encoder import SPEAKER_ENCODER_PREFIX

CPU = torch.device("cpu")
LAYOUT = {
    "README.md", "config.json", "generation_config.json", "merges.txt", WEIGHTS_FILE, "preprocessor_config.json",
    CODEC_DIRECTORY, "tokenizer_config.json", "vocab.json",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory and a temporary directory of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home"


@pytest.fixture
def stored(base: Path, custom_voice: Path, voice_design: Path, tmp_path: Path) -> Path:
    """A tiny package: the base checkpoint whole and the configs of the others."""
    root = tmp_path / "package"
    shutil.copytree(base, root / DIRECTORIES["base"])
    for model_type, source in (("custom_voice", custom_voice), ("voice_design", voice_design)):
        (root / f"demo-{model_type.replace('_', '-')}").mkdir()
        shutil.copy(source / "config.json", root / f"demo-{model_type.replace('_', '-')}")
    return root


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_type_has_the_released_layout(model_type: ModelType) -> None:
    directory = embedded_checkpoint(model_type)
    assert {path.name for path in directory.iterdir()} == LAYOUT
    assert {path.name for path in (directory / CODEC_DIRECTORY).iterdir()} == {
        "config.json", WEIGHTS_FILE, "preprocessor_config.json"
    }  # fmt: skip
    config = read_model_config(directory)
    assert config.tts_model_type == model_type
    assert f"# {DIRECTORIES[model_type]}\n" in (directory / "README.md").read_text(encoding="utf-8")
    load_talker(directory, config, sdpa, CPU, torch.float16)  # refuses a tensor too many or too few


def test_the_types_share_one_talker_and_the_base_model_alone_has_a_speaker_encoder() -> None:
    tensors = {}
    for model_type in MODEL_TYPES:
        with safe_open(embedded_checkpoint(model_type) / WEIGHTS_FILE, framework="pt") as file:
            tensors[model_type] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    talker = {name for name in tensors["base"] if not name.startswith(SPEAKER_ENCODER_PREFIX)}
    assert talker < tensors["base"].keys()
    for model_type in ("custom_voice", "voice_design"):
        assert tensors[model_type].keys() == talker
        assert all(torch.equal(tensors[model_type][name], tensors["base"][name]) for name in talker)


def test_the_package_holds_every_large_file_once() -> None:
    files = [path for path in Path(embedded.__file__).with_name("checkpoints").rglob("*") if path.is_file()]
    large = [path.read_bytes() for path in files if path.stat().st_size > 10_000]
    assert len(set(large)) == len(large)
    assert sum(path.stat().st_size for path in files) < 45_000_000


def test_the_same_content_is_assembled_once_and_the_package_is_not_written(stored: Path, home: Path) -> None:
    before = contents(stored)
    first = assembled_checkpoint(stored, "custom_voice")
    written = (first / WEIGHTS_FILE).stat()
    assert assembled_checkpoint(stored, "custom_voice") == first
    assert (first / WEIGHTS_FILE).stat() == written
    assert (assembled_checkpoint(stored, "voice_design") / WEIGHTS_FILE).stat().st_ino == written.st_ino
    assert first.is_relative_to(home / ".cache" / "qwen-tts")
    assert contents(stored) == before


def test_other_content_is_assembled_elsewhere(stored: Path) -> None:
    first = assembled_checkpoint(stored, "custom_voice")
    config = stored / DIRECTORIES["custom_voice"] / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    second = assembled_checkpoint(stored, "custom_voice")
    assert first != second
    assert (second / "config.json").read_bytes() == config.read_bytes()


def test_a_package_at_another_place_is_assembled_elsewhere(stored: Path, tmp_path: Path) -> None:
    first = assembled_checkpoint(stored, "custom_voice")
    moved = stored.rename(tmp_path / "moved")
    second = assembled_checkpoint(moved, "custom_voice")
    assert first != second, "links of the first are dead"
    assert contents(second)


def test_two_that_assemble_at_once_get_one_directory(stored: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2, timeout=60)
    assemble = embedded._assemble

    def held(directory: Path, source: Path) -> None:
        assemble(directory, source)
        both.wait()

    monkeypatch.setattr(embedded, "_assemble", held)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: assembled_checkpoint(stored, "custom_voice"), range(2))
    assert first == second
    assert (first / WEIGHTS_FILE).is_file()
    assert [path.name for path in (home / ".cache" / "qwen-tts").iterdir()] == [first.parent.name], (
        "nothing is left over"
    )


def test_the_temporary_directory_serves_where_there_is_no_cache(stored: Path, home: Path, tmp_path: Path) -> None:
    home.write_text("not a directory")
    directory = assembled_checkpoint(stored, "custom_voice")
    assert directory.is_relative_to(tmp_path / "tmp" / f"qwen-tts-{os.getuid()}")
    assert directory.parents[1].stat().st_mode & 0o777 == 0o700
    load_talker(directory, read_model_config(directory), sdpa, CPU, torch.float32)


def test_a_directory_of_another_user_is_not_trusted(
    stored: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("not a directory")
    (tmp_path / "tmp" / "qwen-tts-12345").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(CheckpointError, match=r"cannot be assembled: .*home.*qwen-tts-12345: .*another user"):
        assembled_checkpoint(stored, "custom_voice")
