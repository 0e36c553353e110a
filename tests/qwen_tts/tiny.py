"""The checkpoint of the unit tests, and an engine on it whose end of speech is under control."""

from pathlib import Path

import torch
from torch import nn

from qwen_tts.config import read_model_config
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.passes import MakePasses, PlainPasses
from qwen_tts.engine.prefix import PREFIX_CACHE_BYTES
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.layers import Attend, sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.talker import Talker
from qwen_tts.request import CustomVoice, SamplingParams, SpeechRequest, TextLayout
from qwen_tts.seeded import Shape
from qwen_tts.text import TextTokenizer

CPU = torch.device("cpu")
GREEDY = SamplingParams(temperature=0.0)

# A frame takes two milliseconds. No two widths are alike, so that one taken for another cannot pass unseen.
TINY = Shape(
    size_name="1b7",
    hidden=64, intermediate=80, layers=2, heads=4, kv_heads=2, head_dim=24, text_hidden=44, text_vocab=832,
    groups=4, codebook=128, predictor_hidden=48, predictor_intermediate=72, predictor_layers=2, predictor_heads=3,
    predictor_kv_heads=1, predictor_head_dim=20, speaker_channels=32, codec_latent=36, codec_vq=28, codec_width=16,
    codec_hidden=40, codec_intermediate=56, codec_layers=2, codec_heads=2, codec_head_dim=12, encoder_filters=4,
    encoder_hidden=32, encoder_layers=1, encoder_heads=2, encoder_quantizers=8,
)  # fmt: skip

# Added to the logit of end of speech, they make it impossible, and certain as soon as it is allowed.
NEVER, ALWAYS = -1e4, 1e4


def custom(
    text: str = "Hello there.",
    *,
    speaker: str = "ryan",
    instructions: str = "",
    language: str = "auto",
    layout: TextLayout = "whole",
    sampling: SamplingParams | None = None,
    seed: int = 0,
    max_frames: int | None = 12,
) -> SpeechRequest:
    return SpeechRequest(
        text,
        CustomVoice(speaker, instructions),
        language,
        layout,
        sampling or SamplingParams(),
        seed=seed,
        max_frames=max_frames,
    )


def set_eos_bias(talker: Talker, value: float) -> None:
    """Add `value` to every logit of end of speech."""
    bias = torch.zeros(talker.config.vocab_size, dtype=talker.model.codec_embedding.weight.dtype)
    bias[talker.config.codec_eos_token_id] = value
    talker.codec_head.bias = nn.Parameter(bias, requires_grad=False)


def tiny_engine(
    checkpoint: Path,
    *,
    slots: int = 8,
    positions: int = 256,
    max_waiting: int = 8,
    max_frames: int = 4096,
    eos_bias: float = NEVER,
    attend: Attend = sdpa,
    prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
    dtype: torch.dtype = torch.float32,
    make_passes: MakePasses = PlainPasses,
) -> Engine:
    config = read_model_config(checkpoint)
    talker = load_talker(checkpoint, config, attend, CPU, dtype)
    set_eos_bias(talker, eos_bias)
    return Engine(
        config,
        TextTokenizer(checkpoint, config),
        talker,
        slots=slots,
        positions=positions,
        max_waiting=max_waiting,
        max_frames=max_frames,
        prefix_cache_bytes=prefix_cache_bytes,
        make_passes=make_passes,
    )


def drain(engine: Engine) -> None:
    while not engine.idle:
        engine.step()


def speak(engine: Engine, *requests: SpeechRequest) -> list[Sequence]:
    """Run `requests`, added at once, to their ends."""
    sequences = [engine.add(request) for request in requests]
    drain(engine)
    return sequences


def codes(engine: Engine, request: SpeechRequest) -> list[Frame]:
    return speak(engine, request)[0].frames
