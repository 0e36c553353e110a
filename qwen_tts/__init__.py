"""Qwen3-TTS: text to speech at 12.5 frames a second, compatible with the released checkpoints."""

from qwen_tts.api import Qwen3TTSModel
from qwen_tts.errors import CheckpointError, InvalidRequest, Overloaded, QwenTTSError, UnsupportedError

__all__ = ["CheckpointError", "InvalidRequest", "Overloaded", "Qwen3TTSModel", "QwenTTSError", "UnsupportedError"]
