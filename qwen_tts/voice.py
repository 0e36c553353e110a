"""VoicePrompt: the data of a speaker that a Base model needs for cloning, and its .safetensors form."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from qwen_tts.errors import InvalidRequest

_EMBEDDING, _CODES = "speaker_embedding", "ref_codes"
_LARGEST_CODE = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class VoicePrompt:
    """speaker_embedding [D] float32; ref_codes [F, G] int16 and ref_text, their words, or None for both.

    Without reference codes the voice is cloned from the speaker embedding alone ("x-vector only"). With them the talker
    continues the reference recording (in-context learning). `fingerprint` names the encoders that made the prompt; it
    is None when the embedding came from elsewhere. Raises InvalidRequest.
    """

    speaker_embedding: NDArray[np.float32]
    ref_codes: NDArray[np.int16] | None = None
    ref_text: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        embedding = np.asarray(self.speaker_embedding)
        if embedding.ndim != 1 or not np.issubdtype(embedding.dtype, np.floating) or not np.isfinite(embedding).all():
            raise InvalidRequest(
                "speaker_embedding must be a list of finite numbers", "speaker_embedding", "invalid_value"
            )
        if self.ref_codes is None:
            return
        codes = self.ref_codes
        if codes.ndim != 2 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
            raise InvalidRequest("reference codes must be frames [F, G] of integers", "ref_audio")
        if codes.min() < 0 or codes.max() > _LARGEST_CODE:  # files store 16 bits
            raise InvalidRequest(f"reference codes must lie in [0, {_LARGEST_CODE}]", "ref_audio")
        if not isinstance(self.ref_text, str) or not self.ref_text.strip():
            raise InvalidRequest(
                "ref_text is missing: give the words spoken in ref_audio, or set x_vector_only_mode to clone from the "
                "speaker embedding alone",
                "ref_text",
                "missing_field",
            )

    def to_bytes(self) -> bytes:
        """Return a .safetensors file: the tensors, with text and fingerprint as metadata."""
        # safetensors writes an array's memory and ignores its strides.
        tensors: dict[str, NDArray[np.generic]] = {_EMBEDDING: np.ascontiguousarray(self.speaker_embedding, np.float32)}
        if self.ref_codes is not None:
            tensors[_CODES] = np.ascontiguousarray(self.ref_codes, np.int16)
        texts = {"ref_text": self.ref_text, "fingerprint": self.fingerprint}
        return save(tensors, {name: text for name, text in texts.items() if text is not None})

    @classmethod
    def from_bytes(cls, data: bytes) -> "VoicePrompt":
        """Read a .safetensors file. Raises InvalidRequest when `data` is not a voice prompt."""
        try:
            tensors, texts = load(data), _metadata(data)
            return cls(tensors[_EMBEDDING], tensors.get(_CODES), texts.get("ref_text"), texts.get("fingerprint"))
        except (SafetensorError, KeyError, ValueError) as error:
            raise InvalidRequest(f"this is not a saved voice prompt: {error}", "voice", "invalid_voice") from None

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "VoicePrompt":
        """Load a file. Raises InvalidRequest when it is not a voice prompt, OSError when it cannot be read."""
        return cls.from_bytes(Path(path).read_bytes())


@dataclass(frozen=True, eq=False)
class EncodedReference:
    """An encoded reference recording: speaker_embedding [D] float32 and codes [F, G] int16."""

    speaker_embedding: NDArray[np.float32]
    codes: NDArray[np.int16]
    fingerprint: str

    def icl_prompt(self, ref_text: str) -> VoicePrompt:
        """Return a prompt with the words spoken in the recording. Raises InvalidRequest when there are none."""
        return VoicePrompt(self.speaker_embedding, self.codes, ref_text, self.fingerprint)

    def x_vector_prompt(self) -> VoicePrompt:
        """Return a prompt of the speaker embedding alone."""
        return VoicePrompt(self.speaker_embedding, fingerprint=self.fingerprint)


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a valid .safetensors file: eight bytes of length, then the header as JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts: dict[str, str] = header.get("__metadata__") or {}  # null is valid
    return texts
