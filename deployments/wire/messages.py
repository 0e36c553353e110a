"""The values that travel between deployments."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qwen_tts.config import GenerationDefaults, ModelType
from qwen_tts.request import FinishReason


@dataclass(frozen=True)
class Usage:
    """The counts of one speech: text tokens and reference frames that were read, and frames that were generated.

    A frame is 80 ms.
    """

    text_tokens: int
    reference_frames: int
    frames: int

    @property
    def input_tokens(self) -> int:
        return self.text_tokens + self.reference_frames

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.text_tokens + other.text_tokens,
            self.reference_frames + other.reference_frames,
            self.frames + other.frames,
        )


@dataclass(frozen=True)
class FrameChunk:
    """Talker -> codec decoder: `codes` [F, G] int16. A stream's last chunk has a finish reason and the usage (and F may
    be 0). `resumed` is set on the first chunk after the loss of a replica."""

    codes: NDArray[np.int16]
    finish_reason: FinishReason | None
    usage: Usage | None = None
    resumed: bool = False


@dataclass(frozen=True)
class TextTiming:
    """The times of the audio between which the characters [start, end) of a request's text are spoken.

    The characters are a piece, that is one or more sentences. The times are exact. Finer times are not known: see
    decision 15.
    """

    start: int
    end: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class AudioChunk:
    """Codec decoder -> ingress: mono 16-bit PCM. The last chunk of a stream has a finish reason and the usage (and may
    be empty).

    `codes` [F, G] int16 are the frames of the audio. With them, another decoder can go on with the stream. The ingress
    sets `timing` on the last chunk of every piece of a text. `resumed` is set on the first chunk after the loss of a
    replica: the pause before the chunk says nothing about the speed of the others.
    """

    pcm: bytes
    finish_reason: FinishReason | None
    usage: Usage | None = None
    timing: TextTiming | None = None
    codes: NDArray[np.int16] | None = field(default=None, compare=False, repr=False)
    resumed: bool = False


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model that the ingress needs."""

    name: str
    model_type: ModelType
    speakers: tuple[str, ...]
    languages: tuple[str, ...]
    defaults: GenerationDefaults
    sample_rate_hz: int
    utterance_characters: int  # longer text is cut
