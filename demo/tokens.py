"""The tokenizer of the demo: its files, its ids in the configs, and the pronunciation of every token."""

from dataclasses import dataclass
from pathlib import Path

from demo.pronunciation import Pronunciations, pronounce
from demo.shape import demo_configs
from demo.tokenizer import learn_merges, token_texts
from qwen_tts.config import ModelConfig, ModelType
from qwen_tts.seeded_tokenizer import SpecialIds, write_tokenizer


@dataclass(frozen=True, eq=False)
class DemoTokenizer:
    special: SpecialIds
    rows: int
    configs: dict[ModelType, ModelConfig]
    pronunciations: Pronunciations


def write_demo_tokenizer(directory: Path) -> DemoTokenizer:
    """Write vocab.json, merges.txt and tokenizer_config.json, and phones.json as a cache."""
    directory.mkdir(parents=True, exist_ok=True)
    merges = learn_merges()
    texts, specials = token_texts(merges)
    rows = len(texts) + len(specials)
    special = write_tokenizer(directory, rows, merges)
    pronunciations = pronounce(texts, specials, directory / "phones.json")
    return DemoTokenizer(special, rows, demo_configs(special, rows), pronunciations)
