"""Qwen3-TTS: text to speech at 12.5 frames a second, compatible with the released checkpoints."""

import importlib
from typing import TYPE_CHECKING

from qwen_tts.errors import (
    CheckpointError,
    EngineStopped,
    InvalidRequest,
    Overloaded,
    QwenTTSError,
    RequestFailed,
    UnsupportedError,
)

if TYPE_CHECKING:
    from qwen_tts.api import Qwen3TTSModel
    from qwen_tts.tokenizer import Qwen3TTSTokenizer
    from qwen_tts.voice import VoicePrompt
    from qwen_tts.voice_clone import VoiceClonePromptItem

# Imported on first use: the ingress needs the request types but not torch.
_HOMES = {
    "Qwen3TTSModel": "qwen_tts.api",
    "Qwen3TTSTokenizer": "qwen_tts.tokenizer",
    "VoiceClonePromptItem": "qwen_tts.voice_clone",
    "VoicePrompt": "qwen_tts.voice",
}

__all__ = [
    "CheckpointError",
    "EngineStopped",
    "InvalidRequest",
    "Overloaded",
    "Qwen3TTSModel",
    "Qwen3TTSTokenizer",
    "QwenTTSError",
    "RequestFailed",
    "UnsupportedError",
    "VoiceClonePromptItem",
    "VoicePrompt",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'qwen_tts' has no attribute {name!r}")
