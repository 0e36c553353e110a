"""Checkpoints and tokenizer files, written once per session; and places to store things."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from qwen_tts.config import ModelType
from qwen_tts.seeded import write_checkpoint
from tests.qwen_tts.released_vocabulary import write_vocabulary
from tests.qwen_tts.tiny import TINY


def _write(factory: pytest.TempPathFactory, model_type: ModelType) -> Path:
    directory = factory.mktemp("seeded") / model_type
    write_checkpoint(directory, TINY, model_type)
    return directory


@pytest.fixture(scope="session")
def custom_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory, "custom_voice")


@pytest.fixture(scope="session")
def voice_design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory, "voice_design")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory, "base")


@pytest.fixture(scope="session")
def released_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the released vocab.json and merges.txt."""
    directory = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(directory)
    return directory


@pytest.fixture(params=["directory", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an empty place for shared files."""
    if request.param == "directory":
        yield str(tmp_path / "library")
        return
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)
