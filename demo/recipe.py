"""Reads recipe.toml."""

import tomllib
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from qwen_tts.train.codec import AutoencoderStage, EncoderStage, WaveformStage
from qwen_tts.train.talker import TalkerStage

RECIPE = Path(__file__).with_name("recipe.toml")


@dataclass(frozen=True)
class CorpusStage:
    clips: int
    workers: int
    codec_clips: int


@dataclass(frozen=True)
class Recipe:
    corpus: CorpusStage
    autoencoder: AutoencoderStage
    encoder: EncoderStage
    waveform: WaveformStage
    talker: TalkerStage


def read_recipe(file: Path = RECIPE) -> Recipe:
    return TypeAdapter(Recipe).validate_python(tomllib.loads(file.read_text(encoding="utf-8")))
