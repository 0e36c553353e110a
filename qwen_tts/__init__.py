"""Qwen3-TTS: text to speech at 12.5 frames a second, compatible with the released checkpoints."""

from typing import TYPE_CHECKING

from qwen_tts.errors import CheckpointError, EngineStopped, InvalidRequest, Overloaded, QwenTTSError, UnsupportedError

if TYPE_CHECKING:
    from qwen_tts.api import Qwen3TTSModel

__all__ = [
    "CheckpointError",
    "EngineStopped",
    "InvalidRequest",
    "Overloaded",
    "Qwen3TTSModel",
    "QwenTTSError",
    "UnsupportedError",
]


def __getattr__(name: str) -> object:
    """Import the model on first use: a process at the HTTP edge needs the request types but not torch."""
    if name == "Qwen3TTSModel":
        from qwen_tts.api import Qwen3TTSModel

        return Qwen3TTSModel
    raise AttributeError(f"module 'qwen_tts' has no attribute {name!r}")
