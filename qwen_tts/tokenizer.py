"""Qwen3TTSTokenizer: the codec on its own, with the reference's names. Audio to 12.5 Hz codes and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_tts.arguments import as_tensor, to_device, to_dtype
from qwen_tts.audio import AudioSource, Clip, Samples, load_audio
from qwen_tts.checkpoint import CODEC_DIRECTORY, resolve_checkpoint
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder, load_codec_decoder
from qwen_tts.codec.encoder import CodecEncoder, load_codec_encoder
from qwen_tts.config import CodecConfig
from qwen_tts.errors import InvalidRequest

Codes = Tensor | NDArray[np.generic]
Audios = AudioSource | NDArray[np.generic] | Sequence[AudioSource | NDArray[np.generic]]


@dataclass(frozen=True)
class EncodedAudio:
    """`audio_codes`: the codes [F, G] int64 of each clip."""

    audio_codes: list[Tensor]


class Qwen3TTSTokenizer:
    """A loaded codec: of a codec directory (Qwen3-TTS-Tokenizer-12Hz) or of a model directory.

    Samples are float32 at 24 kHz; a frame of 16 codes is 1,920 samples.
    """

    def __init__(self, encoder: CodecEncoder, decoder: CodecDecoder, config: CodecConfig) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._config = config
        self._device = decoder.pre_conv.conv.weight.device

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *,
        device_map: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> "Qwen3TTSTokenizer":
        """Load a codec or model directory, or a Hugging Face hub id.

        device_map: as in Qwen3TTSModel.from_pretrained. dtype: the decoder's type; the encoder computes in float32.
        Raises CheckpointError or UnsupportedError.
        """
        device = to_device(device_map)
        directory = resolve_checkpoint(str(pretrained_model_name_or_path))
        if (directory / CODEC_DIRECTORY).is_dir():
            directory = directory / CODEC_DIRECTORY
        encoder, config = load_codec_encoder(directory, device)
        return cls(encoder, load_codec_decoder(directory, device, to_dtype(dtype)), config)

    @overload
    def encode(self, audios: Audios, sr: int | None = None, return_dict: Literal[True] = True) -> EncodedAudio: ...

    @overload
    def encode(self, audios: Audios, sr: int | None = None, *, return_dict: Literal[False]) -> tuple[list[Tensor]]: ...

    def encode(
        self, audios: Audios, sr: int | None = None, return_dict: bool = True
    ) -> EncodedAudio | tuple[list[Tensor]]:
        """Encode each clip: S samples at 24 kHz give ceil(S / 1920) frames of codes.

        audios: one or a list of paths, URLs, base64 texts, data URLs, (samples, sample rate) or arrays of samples. `sr`
        is the sample rate in Hz of arrays. With return_dict False the result is a tuple. Raises InvalidRequest.
        """
        clips = [self._clip(audio, sr) for audio in (audios if isinstance(audios, list) else [audios])]
        waves = [torch.from_numpy(clip.samples).to(self._device) for clip in clips]
        codes = self._encoder.encode(waves, self._config.encoder_valid_num_quantizers) if waves else []
        return EncodedAudio(codes) if return_dict else (codes,)

    def decode(
        self, encoded: EncodedAudio | Mapping[str, Codes | Sequence[Codes]] | Sequence[Mapping[str, Codes]]
    ) -> tuple[list[Samples], int]:
        """Decode the result of `encode` to (samples [F * 1920] of each clip, sample rate in Hz).

        Also accepts {"audio_codes": codes} or a list of these. Codes are tensors or arrays: [F, G], a list of these,
        or [B, F, G] where frames of -1 are padding. Raises InvalidRequest.
        """
        samples = [self._decode(codes) for codes in _code_list(encoded)]
        return samples, self._config.output_sample_rate

    def get_model_type(self) -> str:
        return "qwen3_tts_tokenizer_12hz"

    def get_input_sample_rate(self) -> int:
        return self._config.input_sample_rate

    def get_output_sample_rate(self) -> int:
        return self._config.output_sample_rate

    def get_encode_downsample_rate(self) -> int:
        return self._config.encode_downsample_rate

    def get_decode_upsample_rate(self) -> int:
        return self._config.decode_upsample_rate

    def load_audio(self, x: AudioSource, target_sr: int) -> Samples:
        """Return the mono samples of `x` at target_sr Hz."""
        return load_audio(x).resampled(target_sr).samples

    def _clip(self, audio: object, sample_rate_hz: int | None) -> Clip:
        if isinstance(audio, np.ndarray):
            if sample_rate_hz is None:
                raise InvalidRequest("sr is missing: give the sample rate of the samples in Hz", "sr", "missing_field")
            audio = (audio, sample_rate_hz)
        return load_audio(audio).resampled(self._config.input_sample_rate)  # type: ignore[arg-type]  # checked there

    @torch.inference_mode()
    def _decode(self, codes: Tensor) -> Samples:
        groups, size = self._config.decoder_config.num_quantizers, self._config.decoder_config.codebook_size
        if codes.ndim != 2 or codes.shape[1] != groups or codes.is_floating_point():
            raise InvalidRequest(
                f"audio_codes must be integers [F, {groups}], not {list(codes.shape)} {codes.dtype}", "audio_codes"
            )
        codes = codes.to(self._device, torch.int64)
        codes = codes[codes[:, 0] >= 0]
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= size):
            raise InvalidRequest(f"audio_codes must lie in [0, {size})", "audio_codes", "out_of_range")
        samples: Samples = self._decoder.decode_long(codes, Carry()).cpu().numpy()
        return samples


def _code_list(encoded: object) -> list[Tensor]:
    codes: object
    match encoded:
        case EncodedAudio():
            return encoded.audio_codes
        case {"audio_codes": found}:
            codes = found
        case [*entries] if entries and all(isinstance(entry, Mapping) and "audio_codes" in entry for entry in entries):
            codes = [cast("Mapping[str, object]", entry)["audio_codes"] for entry in entries]
        case _:
            raise InvalidRequest(
                "encoded must be a result of encode, {'audio_codes': ...} or a list of these",
                "encoded",
                "invalid_value",
            )
    if isinstance(codes, list | tuple):
        return [as_tensor("audio_codes", one) for one in codes]
    tensor = as_tensor("audio_codes", codes)
    return list(tensor) if tensor.ndim > 2 else [tensor]
