"""Seeded checkpoints, written once per session."""

from pathlib import Path

import pytest

from qwen_tts.config import ModelType
from qwen_tts.seeded import SHAPES, write_checkpoint


def _write(factory: pytest.TempPathFactory, model_type: ModelType) -> Path:
    directory = factory.mktemp("seeded") / model_type
    write_checkpoint(directory, SHAPES["small"], model_type)
    return directory


@pytest.fixture(scope="session")
def custom_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory, "custom_voice")


@pytest.fixture(scope="session")
def voice_design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory, "voice_design")
