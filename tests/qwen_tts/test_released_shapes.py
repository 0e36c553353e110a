"""The released configs build modules with exactly the tensors of the released files. On the meta device: no memory."""

import math

import pytest
import torch
from torch import nn

from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.encoder import CodecEncoder
from qwen_tts.config import ModelType, codec_config
from qwen_tts.models.qwen3_tts import Qwen3TTS
from qwen_tts.seeded import SHAPES, codec_json
from tests.qwen_tts.released_tensors import Shapes, codec_tensors, model_tensors
from tests.qwen_tts.released_vocabulary import released_config

# Size, type, and what the header of the released model.safetensors counts: tensors, elements.
MODELS: list[tuple[str, ModelType, int, int]] = [
    ("0.6B", "base", 478, 914_643_008),
    ("0.6B", "custom_voice", 402, 905_788_672),
    ("1.7B", "base", 480, 1_928_677_440),
    ("1.7B", "custom_voice", 404, 1_916_676_352),
    ("1.7B", "voice_design", 404, 1_916_676_352),
]
WIDTHS = {"0.6B": (1024, 3072), "1.7B": (2048, 6144)}


def shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("size", "model_type", "tensors", "elements"), MODELS)
def test_model_tensors(size: str, model_type: ModelType, tensors: int, elements: int) -> None:
    released = model_tensors(*WIDTHS[size], speaker_encoder=model_type == "base")
    assert (len(released), sum(map(math.prod, released.values()))) == (tensors, elements)
    with torch.device("meta"):
        model = Qwen3TTS(released_config(model_type, SHAPES[size]))
    assert shapes(model) == released
    assert all(tensor.is_floating_point() for tensor in model.state_dict().values())


def test_codec_tensors() -> None:
    released = codec_tensors()
    assert (len(released), sum(map(math.prod, released.values()))) == (496, 170_557_441)
    config = codec_config(codec_json(SHAPES["0.6B"]))
    with torch.device("meta"):
        codec = nn.ModuleDict(
            {"decoder": CodecDecoder(config.decoder_config), "encoder": CodecEncoder(config.encoder_config)}
        )
    assert shapes(codec) == released
    assert {tensor.dtype for tensor in codec.state_dict().values()} == {torch.float32}


def test_released_ids() -> None:
    """From the released 1.7B-CustomVoice config.json; a seeded config computes them from offsets."""
    talker = released_config("custom_voice", SHAPES["1.7B"]).talker_config
    assert (talker.vocab_size, talker.text_vocab_size) == (3072, 151936)
    assert (talker.codec_pad_id, talker.codec_bos_id, talker.codec_eos_token_id) == (2148, 2149, 2150)
    assert (talker.codec_think_id, talker.codec_nothink_id) == (2154, 2155)
    assert (talker.codec_think_bos_id, talker.codec_think_eos_id) == (2156, 2157)
    assert talker.codec_language_id == {
        "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
        "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069, "beijing_dialect": 2074,
        "sichuan_dialect": 2062,
    }  # fmt: skip
    assert talker.spk_id == {
        "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873, "sohee": 2864,
        "eric": 2875, "dylan": 2878,
    }  # fmt: skip
    dialects = {name: dialect for name, dialect in talker.spk_is_dialect.items() if dialect}
    assert dialects == {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}


@pytest.mark.parametrize(("size", "model_type"), [(size, model_type) for size, model_type, _, _ in MODELS])
def test_what_each_model_offers(size: str, model_type: ModelType) -> None:
    config = released_config(model_type, SHAPES[size])
    assert len(config.languages) == 11, "ten languages and auto; dialects are not for callers"
    assert len(config.speakers) == (9 if model_type == "custom_voice" else 0)
    assert config.follows_instructions == ((size, model_type) != ("0.6B", "custom_voice"))
    assert (config.speaker_encoder_config is not None) == (model_type == "base")
