"""Checkpoints with seeded random weights in the released directory layout. They make noise, not speech.

They serve where real weights are not available: in tests, and for speed measurements at the released shapes. The
numbers are those of the released config.json files; only `small` has smaller ones. The same shape, type and seed give
the same bytes everywhere.
"""

import dataclasses
import json
import math
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.encoder import CodecEncoder
from qwen_tts.config import SPECIAL_CODES, GenerationDefaults, ModelType, codec_config, model_config
from qwen_tts.models.qwen3_tts import Qwen3TTS
from qwen_tts.seeded_tokenizer import SpecialIds, role_merges, write_tokenizer

JsonObject = dict[str, object]

# The released preprocessor_config.json.
MODEL_PREPROCESSOR: JsonObject = {
    "padding_side": "left", "padding_value": 0.0, "processor_class": "Qwen3TTSProcessor",
}  # fmt: skip
CODEC_PREPROCESSOR: JsonObject = {
    "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "sampling_rate": 24000,
}  # fmt: skip

# Offsets into the last SPECIAL_CODES ids of the talker's vocabulary, from the released configs.
_CONTROL = {"pad": 100, "bos": 101, "eos_token": 102, "think": 106, "nothink": 107, "think_bos": 108, "think_eos": 109}
_LANGUAGES = {
    "chinese": 7, "english": 2, "german": 5, "italian": 22, "portuguese": 23, "spanish": 6, "japanese": 10,
    "korean": 16, "french": 13, "russian": 21,
}  # fmt: skip
_DIALECTS = {"beijing_dialect": 26, "sichuan_dialect": 14}
_SPEAKERS = {
    "serena": 1018, "vivian": 1017, "uncle_fu": 962, "ryan": 1013, "aiden": 813, "ono_anna": 825, "sohee": 816,
    "eric": 827, "dylan": 830,
}  # fmt: skip
_SPEAKER_DIALECTS = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}


@dataclass(frozen=True)
class Shape:
    """Every dimension that may differ between checkpoints; the defaults are Qwen3-TTS-12Hz-0.6B and its codec."""

    size_name: str = "0b6"
    hidden: int = 1024
    intermediate: int = 3072
    layers: int = 28
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    text_hidden: int = 2048
    text_vocab: int = 151936
    groups: int = 16
    codebook: int = 2048
    predictor_hidden: int = 1024
    predictor_intermediate: int = 3072
    predictor_layers: int = 5
    predictor_heads: int = 16
    predictor_kv_heads: int = 8
    predictor_head_dim: int = 128
    speaker_channels: int = 512
    codec_latent: int = 1024
    codec_vq: int = 512
    codec_width: int = 1536
    codec_hidden: int = 512
    codec_intermediate: int = 1024
    codec_layers: int = 8
    codec_heads: int = 16
    codec_head_dim: int = 64
    encoder_filters: int = 64
    encoder_hidden: int = 512
    encoder_layers: int = 8
    encoder_heads: int = 8
    encoder_quantizers: int = 32


SHAPES: dict[str, Shape] = {
    "0.6B": Shape(),
    "1.7B": Shape(size_name="1b7", hidden=2048, intermediate=6144),
    "small": Shape(
        size_name="1b7",  # instructions are dropped for 0b6
        hidden=128, intermediate=384, layers=4, heads=4, kv_heads=2, head_dim=32, text_hidden=64, text_vocab=832,
        predictor_hidden=96, predictor_intermediate=256, predictor_layers=2, predictor_heads=4, predictor_kv_heads=2,
        predictor_head_dim=32, speaker_channels=64, codec_latent=128, codec_vq=64, codec_width=192, codec_hidden=64,
        codec_intermediate=128, codec_layers=2, codec_heads=4, codec_head_dim=16, encoder_filters=8,
        encoder_hidden=64, encoder_layers=2, encoder_heads=4,
    ),
}  # fmt: skip

# Small residual branches keep a stream's loudness constant. The last convolution makes the noise quiet.
_CODEC_GAINS = {"conv2.conv.weight": 0.3, "decoder.decoder.6.conv": 0.1}


def write_checkpoint(
    directory: Path, shape: Shape, model_type: ModelType, seed: int = 0, *, progress: bool = False
) -> None:
    """Write a checkpoint of random weights to `directory`, which appears complete or not at all.

    Raises FileExistsError when the directory exists.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} already exists")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}.partial-", dir=directory.parent) as parent:
        partial = Path(parent) / directory.name
        _write(partial, shape, model_type, seed, progress)
        partial.rename(directory)


def _write(directory: Path, shape: Shape, model_type: ModelType, seed: int, progress: bool) -> None:
    codec = directory / CODEC_DIRECTORY
    codec.mkdir(parents=True)
    special = write_tokenizer(directory, shape.text_vocab, role_merges())
    model = model_json(shape, model_type, special)
    decoder_and_encoder = codec_json(shape)
    write_json(directory / "config.json", model)
    write_json(directory / "generation_config.json", dataclasses.asdict(GenerationDefaults()))
    write_json(directory / "preprocessor_config.json", MODEL_PREPROCESSOR)
    write_json(codec / "config.json", decoder_and_encoder)
    write_json(codec / "preprocessor_config.json", CODEC_PREPROCESSOR)
    with torch.device("meta"):
        talker = Qwen3TTS(model_config(model))
        config = codec_config(decoder_and_encoder)
        codec_parts = nn.ModuleDict(
            {"decoder": CodecDecoder(config.decoder_config), "encoder": CodecEncoder(config.encoder_config)}
        )
    save_file(_random_tensors(talker, torch.bfloat16, seed, progress), directory / WEIGHTS_FILE)
    save_file(_random_tensors(codec_parts, torch.float32, seed, progress), codec / WEIGHTS_FILE)


def model_json(shape: Shape, model_type: ModelType, special: SpecialIds) -> JsonObject:
    """Return the config.json of a model of this shape and type."""
    custom = model_type == "custom_voice"
    first = shape.codebook  # the first of the last SPECIAL_CODES ids
    predictor = {
        "hidden_size": shape.predictor_hidden, "intermediate_size": shape.predictor_intermediate,
        "num_hidden_layers": shape.predictor_layers, "num_attention_heads": shape.predictor_heads,
        "num_key_value_heads": shape.predictor_kv_heads, "head_dim": shape.predictor_head_dim,
        "layer_types": ["full_attention"] * shape.predictor_layers, "vocab_size": shape.codebook,
        "num_code_groups": shape.groups, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None,
        "max_position_embeddings": 65536, "hidden_act": "silu", "attention_bias": False,
        "model_type": "qwen3_tts_talker_code_predictor",
    }  # fmt: skip
    half = shape.head_dim // 2
    third = half // 3
    talker = {
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": first + SPECIAL_CODES, "text_vocab_size": shape.text_vocab,
        "text_hidden_size": shape.text_hidden, "num_code_groups": shape.groups, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000, "max_position_embeddings": 32768, "hidden_act": "silu", "attention_bias": False,
        "rope_scaling": {
            "interleaved": True, "mrope_section": [half - 2 * third, third, third],
            "rope_type": "default", "type": "default",
        },
        **{f"codec_{name}_id": first + offset for name, offset in _CONTROL.items()},
        "codec_language_id": {
            name: first + offset for name, offset in (_LANGUAGES | (_DIALECTS if custom else {})).items()
        },
        "spk_id": {name: first + offset for name, offset in _SPEAKERS.items()} if custom else {},
        "spk_is_dialect": {name: _SPEAKER_DIALECTS.get(name, False) for name in _SPEAKERS} if custom else {},
        "code_predictor_config": predictor, "model_type": "qwen3_tts_talker",
    }  # fmt: skip
    config: JsonObject = {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz", "tts_model_size": shape.size_name, "tts_model_type": model_type,
        **dataclasses.asdict(special), "talker_config": talker,
    }  # fmt: skip
    if model_type == "base":
        c = shape.speaker_channels
        speaker: JsonObject = {"enc_dim": shape.hidden, "sample_rate": 24000}
        if c != Shape.speaker_channels:
            speaker["enc_channels"] = [c, c, c, c, 3 * c]
        config["speaker_encoder_config"] = speaker
    return config


def codec_json(shape: Shape) -> JsonObject:
    """Return the config.json of the codec of this shape."""
    decoder = {
        "latent_dim": shape.codec_latent, "codebook_dim": shape.codec_vq, "codebook_size": shape.codebook,
        "decoder_dim": shape.codec_width, "hidden_size": shape.codec_hidden,
        "intermediate_size": shape.codec_intermediate, "head_dim": shape.codec_head_dim,
        "num_attention_heads": shape.codec_heads, "num_key_value_heads": shape.codec_heads,
        "num_hidden_layers": shape.codec_layers, "num_quantizers": shape.groups, "num_semantic_quantizers": 1,
        "vector_quantization_hidden_dimension": 512, "sliding_window": 72, "rope_theta": 10000, "rms_norm_eps": 1e-5,
        "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2], "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
    }  # fmt: skip
    encoder = {
        "_frame_rate": 12.5, "audio_channels": 1, "sampling_rate": 24000, "num_filters": shape.encoder_filters,
        "hidden_size": shape.encoder_hidden, "intermediate_size": 4 * shape.encoder_hidden,
        "num_hidden_layers": shape.encoder_layers, "num_attention_heads": shape.encoder_heads,
        "num_key_value_heads": shape.encoder_heads, "head_dim": shape.encoder_hidden // shape.encoder_heads,
        "kernel_size": 7, "last_kernel_size": 3, "residual_kernel_size": 3, "num_residual_layers": 1,
        "dilation_growth_rate": 2, "compress": 2, "upsampling_ratios": [8, 6, 5, 4], "sliding_window": 250,
        "rope_theta": 10000.0, "norm_eps": 1e-5, "hidden_act": "gelu", "pad_mode": "constant",
        "use_causal_conv": True, "codebook_size": shape.codebook, "codebook_dim": shape.codec_vq // 2,
        "num_quantizers": shape.encoder_quantizers, "num_semantic_quantizers": 1,
        "vector_quantization_hidden_dimension": shape.codec_vq // 2, "upsample_groups": shape.encoder_hidden,
        "trim_right_ratio": 1.0, "use_conv_shortcut": False, "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000, "attention_bias": False, "attention_dropout": 0.0, "use_cache": False,
        "initializer_range": 0.02, "normalize": False, "use_streaming": False,
    }  # fmt: skip
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"], "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": shape.groups, "input_sample_rate": 24000, "output_sample_rate": 24000,
        "encode_downsample_rate": 1920, "decode_upsample_rate": 1920, "decoder_config": decoder,
        "encoder_config": encoder,
    }  # fmt: skip


def write_json(path: Path, content: JsonObject) -> None:
    """Write `content` in the format of a checkpoint directory's files."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _random_tensors(module: nn.Module, dtype: torch.dtype, seed: int, progress: bool) -> dict[str, Tensor]:
    state = tqdm(module.state_dict().items(), "random weights", unit="tensor", disable=not progress)
    return {name: _random_tensor(name, tuple(meta.shape), seed).to(dtype) for name, meta in state}


def _random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return random values that keep the scale of activations, so that every part affects the result."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    last = name.rsplit(".", 1)[-1]
    if last == "initialized":
        return torch.ones(shape)
    if last == "cluster_usage":
        return noise.abs() * 0.2 + 1.0
    if "norm" in name.rsplit(".", 2)[-2] and last == "weight":
        return noise * 0.1 + 1.0
    if last in ("bias", "alpha", "beta"):
        return noise * 0.1
    if last in ("scale", "gamma"):
        return noise * 0.1 + 0.3
    if "embed" in name:
        return noise
    if "head" in name:
        return noise * (3.0 / math.sqrt(shape[1]))  # the spread lets one code stand out
    gain = next((gain for part, gain in _CODEC_GAINS.items() if part in name), 1.0)
    fan_in = shape[0] * 2 if name.endswith("block.1.conv.weight") else math.prod(shape[1:])
    return noise * (gain / math.sqrt(fan_in))
