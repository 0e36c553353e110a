"""The modules whose weights are in one model.safetensors."""

from pathlib import Path

import torch
from torch import nn

from qwen_tts.checkpoint import WEIGHTS_FILE, load_weights
from qwen_tts.config import ModelConfig
from qwen_tts.layers import Attend, sdpa
from qwen_tts.models.speaker_encoder import SPEAKER_ENCODER_PREFIX, SpeakerEncoder
from qwen_tts.models.talker import Talker


class Qwen3TTS(nn.Module):
    """Weights `talker.*`, and `speaker_encoder.*` in Base models."""

    def __init__(self, config: ModelConfig, attend: Attend = sdpa) -> None:
        super().__init__()
        self.talker = Talker(config.talker_config, attend)
        if config.speaker_encoder_config is not None:
            self.speaker_encoder = SpeakerEncoder(config.speaker_encoder_config)


def load_talker(
    directory: Path, config: ModelConfig, attend: Attend, device: torch.device, dtype: torch.dtype
) -> Talker:
    """Load the talker of a checkpoint directory, without its speaker encoder. Raises CheckpointError."""
    with torch.device("meta"):
        talker = Talker(config.talker_config, attend)
    ignore = (SPEAKER_ENCODER_PREFIX,) if config.speaker_encoder_config is not None else ()
    load_weights(talker, directory / WEIGHTS_FILE, device=device, dtype=dtype, prefix="talker.", ignore=ignore)
    return talker
