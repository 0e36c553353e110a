"""Reference audio -> VoicePrompt: the speaker encoder of a Base model and the encoder of its codec."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from qwen_tts.audio import Clip
from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE
from qwen_tts.codec.encoder import CodecEncoder, load_codec_encoder
from qwen_tts.config import read_model_config
from qwen_tts.errors import UnsupportedError
from qwen_tts.models.speaker_encoder import SPEAKER_ENCODER_PREFIX, SpeakerEncoder, load_speaker_encoder
from qwen_tts.voice import EncodedReference


class VoiceEncoder:
    """Both encoders, in float32. They run once per voice, and in 16 bits rounding would change codes."""

    def __init__(
        self, speaker_encoder: SpeakerEncoder, codec_encoder: CodecEncoder, groups: int, fingerprint: str
    ) -> None:
        self.speaker_encoder = speaker_encoder
        self.codec_encoder = codec_encoder
        self.fingerprint = fingerprint
        self.sample_rate_hz = speaker_encoder.config.sample_rate
        self._groups = groups
        self._device = speaker_encoder.fc.weight.device

    @torch.inference_mode()
    def encode(self, clips: Sequence[Clip]) -> list[EncodedReference]:
        """Encode clips of any sample rate. The result of a clip does not depend on the others."""
        waves = [torch.from_numpy(clip.resampled(self.sample_rate_hz).samples).to(self._device) for clip in clips]
        codes = self.codec_encoder.encode(waves, self._groups)
        assert all(frames.shape[1] == self._groups for frames in codes), "a frame has another number of codes"
        return [
            EncodedReference(
                self.speaker_encoder.embed(wave).cpu().numpy(), frames.to(torch.int16).cpu().numpy(), self.fingerprint
            )
            for wave, frames in zip(waves, codes, strict=True)
        ]


def load_voice_encoder(directory: Path, device: torch.device) -> VoiceEncoder:
    """Load the encoders of a Base checkpoint. Raises CheckpointError, or UnsupportedError for another type."""
    config = read_model_config(directory)
    if config.speaker_encoder_config is None:
        raise UnsupportedError(
            f"a model of type {config.tts_model_type!r} cannot clone voices; a model of type 'base' can"
        )
    speaker_encoder = load_speaker_encoder(directory, config.speaker_encoder_config, device)
    codec_encoder, codec = load_codec_encoder(directory / CODEC_DIRECTORY, device)
    return VoiceEncoder(speaker_encoder, codec_encoder, codec.encoder_valid_num_quantizers, fingerprint(directory))


def fingerprint(directory: Path) -> str:
    """Return the name of a Base checkpoint's voice space: 32 hex digits, equal for equal encoders.

    The name is a digest of the speaker encoder and of the codec encoder's codebooks. A prompt serves every talker that
    was trained with these encoders, fine-tuned ones included.
    """
    digest = hashlib.sha256()
    for file, prefix in (
        (directory / WEIGHTS_FILE, SPEAKER_ENCODER_PREFIX),
        (directory / CODEC_DIRECTORY / WEIGHTS_FILE, "encoder.quantizer."),
    ):
        with safe_open(file, framework="pt") as stored:
            for name in sorted(name for name in stored.keys() if name.startswith(prefix)):  # noqa: SIM118 (not a dict)
                tensor = stored.get_tensor(name).contiguous()
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
