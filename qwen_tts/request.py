"""Requests as frozen values. All ranges are checked here, once, for the library and for HTTP.

`prompt.build_prompt` checks what depends on the model, such as whether it knows a speaker.
"""

import secrets
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.errors import ConfigError, InvalidRequest
from qwen_tts.voice import VoicePrompt

FinishReason = Literal["stop", "length", "cancelled", "failed"]
# The place of the text in the prompt: all of it before the first frame, or one row beside every frame.
TextLayout = Literal["whole", "streaming"]

MAX_SEED = 2**63 - 1
_DRAWN_SEEDS = 2**52
MAX_TEMPERATURE = 2.0
MAX_TOP_K = 65536
MAX_REPETITION_PENALTY = 10.0
MAX_FRAMES = 2**31 - 1
MAX_FIRST_CHUNK_FRAMES = 50  # 4 s; other streams of the batch wait while a chunk is decoded
# The reference refuses end of speech before this many frames (min_new_tokens of its generate call).
MIN_FRAMES = 2


def _check_range(
    name: str, value: float, low: float, high: float, *, open_low: bool = False, whole: bool = False
) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "whole number" if whole else "number"
        raise InvalidRequest(f"{name} must be a {kind}, not {value!r}", name, "invalid_value")
    too_low = value <= low if open_low else value < low
    if too_low or not value <= high:  # `not <=` also refuses NaN
        span = f"above {low}" if open_low else f"at least {low}"
        raise InvalidRequest(f"{name} is {value}; it must be {span} and at most {high}", name, "out_of_range")


def check_text(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(f"{name} must be a string, not {text!r}", name, "invalid_value")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} holds half of a surrogate pair, which is not text", name) from None


@dataclass(frozen=True)
class SamplingParams:
    """How one code is drawn from its logits. temperature 0 takes the most likely code; top_k 0 and top_p 1 do nothing.

    Raises InvalidRequest that names the field, with `prefix` before its name.
    """

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    prefix: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_range(f"{self.prefix}temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _check_range(f"{self.prefix}top_k", self.top_k, 0, MAX_TOP_K, whole=True)
        _check_range(f"{self.prefix}top_p", self.top_p, 0.0, 1.0)


@dataclass(frozen=True)
class CustomVoice:
    """A built-in speaker of a CustomVoice model, with an optional instruction for style."""

    speaker: str
    instructions: str = ""


@dataclass(frozen=True)
class DesignedVoice:
    """A voice that a VoiceDesign model makes from a description."""

    description: str


@dataclass(frozen=True)
class ClonedVoice:
    """The voice of a reference recording, spoken by a Base model."""

    prompt: VoicePrompt


Voice = CustomVoice | DesignedVoice | ClonedVoice


def draw_seed() -> int:
    """Return a random seed that survives JSON in JavaScript, where a number is a double: exact below 2^53.

    Half of that range stays free for seeds that callers count up from a drawn one.
    """
    return secrets.randbelow(_DRAWN_SEEDS)


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """How a text is spoken: everything of a SpeechRequest but its text. Raises InvalidRequest naming the field."""

    voice: Voice
    language: str = LANGUAGE_AUTO
    text_layout: TextLayout = "whole"
    sampling: SamplingParams = SamplingParams()
    predictor_sampling: SamplingParams = SamplingParams(prefix="subtalker_")
    repetition_penalty: float = 1.05
    seed: int = field(default_factory=draw_seed)
    max_frames: int | None = None
    first_chunk_frames: int | None = None

    def __post_init__(self) -> None:
        _check_options(self)

    def request(self, text: str) -> "SpeechRequest":
        """Return the request to speak `text`. Raises InvalidRequest when there is no text."""
        return SpeechRequest(text, **{name: getattr(self, name) for name in _OPTIONS})


_OPTIONS = tuple(option.name for option in fields(SpeechOptions))


@dataclass(frozen=True)
class SpeechRequest:
    """One utterance. In float32 the same request gives the same codes alone, in any batch and on any replica.

    (In 16-bit dtypes torch's products round differently with the number of rows, so codes may differ. Native code's
    products do not.)

    `max_frames` is the caller's own bound (one frame is 80 ms); None leaves the bound to `frame_limit`. The first
    `first_chunk_frames` frames leave together when the speech is streamed; None leaves their number to the server.
    `ahead_s` is the audio, in seconds, that the listener hears before this speech; requests with less of it come first.
    Neither of the two changes a code. Raises InvalidRequest naming the field.
    """

    text: str
    voice: Voice
    language: str = LANGUAGE_AUTO
    text_layout: TextLayout = "whole"
    sampling: SamplingParams = SamplingParams()
    predictor_sampling: SamplingParams = SamplingParams(prefix="subtalker_")
    repetition_penalty: float = 1.05
    seed: int = field(default_factory=draw_seed)
    max_frames: int | None = None
    first_chunk_frames: int | None = None
    ahead_s: float = 0.0

    def __post_init__(self) -> None:
        check_text("input", self.text)
        if not self.text.strip():
            raise InvalidRequest("input is empty: give the text to speak", "input", "empty_input")
        _check_options(self)
        assert self.ahead_s >= 0.0, "audio ahead of this speech cannot be negative"

    @property
    def texts(self) -> dict[str, str]:
        """Every text the caller wrote, by the public name of its field."""
        return {"input": self.text, **voice_texts(self.voice)}


def _check_options(options: SpeechOptions | SpeechRequest) -> None:
    """Check everything but the text. Raises InvalidRequest naming the field."""
    for param, text in voice_texts(options.voice).items():
        check_text(param, text)
    check_text("language", options.language)
    if options.text_layout not in get_args(TextLayout):
        layouts = ", ".join(get_args(TextLayout))
        raise InvalidRequest(f"text_layout is {options.text_layout!r}; it must be one of {layouts}", "text_layout")
    _check_range("repetition_penalty", options.repetition_penalty, 0.0, MAX_REPETITION_PENALTY, open_low=True)
    _check_range("seed", options.seed, 0, MAX_SEED, whole=True)
    if options.max_frames is not None:
        _check_range("max_new_tokens", options.max_frames, 1, MAX_FRAMES, whole=True)
    if (first := options.first_chunk_frames) is not None:
        _check_range("initial_codec_chunk_frames", first, 1, MAX_FIRST_CHUNK_FRAMES, whole=True)


def voice_texts(voice: Voice) -> dict[str, str]:
    """Return the texts in a voice that the caller wrote, by the public names of their fields."""
    match voice:
        case CustomVoice(speaker=name, instructions=words):
            return {"voice": name, "instructions": words}
        case DesignedVoice(description=words):
            return {"instructions": words}
        case ClonedVoice(prompt=prompt):
            return {"ref_text": prompt.ref_text or ""}


def default_sampling(defaults: GenerationDefaults) -> tuple[SamplingParams, SamplingParams]:
    """Return the parameters of talker and code predictor from a checkpoint's generation_config.json."""
    talker = SamplingParams(
        temperature=defaults.temperature if defaults.do_sample else 0.0, top_k=defaults.top_k, top_p=defaults.top_p
    )
    predictor = SamplingParams(
        temperature=defaults.subtalker_temperature if defaults.subtalker_dosample else 0.0,
        top_k=defaults.subtalker_top_k,
        top_p=defaults.subtalker_top_p,
        prefix="subtalker_",
    )
    return talker, predictor


def check_defaults(defaults: GenerationDefaults) -> None:
    """Raise ConfigError when generation_config.json holds a value that no request may have."""
    try:
        default_sampling(defaults)
        _check_range("repetition_penalty", defaults.repetition_penalty, 0.0, MAX_REPETITION_PENALTY, open_low=True)
        _check_range("max_new_tokens", defaults.max_new_tokens, 1, MAX_FRAMES, whole=True)
    except InvalidRequest as error:
        raise ConfigError(f"generation_config.json: {error.message}") from None


def frame_limit(request: SpeechRequest, absolute: int) -> int:
    """Return the most frames of `request`: its own bound or else that of its text, and at most `absolute`."""
    limit = frames_for_text(request.text) if request.max_frames is None else request.max_frames
    return min(limit, absolute)


def frames_for_text(text: str) -> int:
    """Return an upper bound on the frames that `text` needs: 6 s, and half a second per byte.

    Without it, a talker that misses its end of speech continues (for eleven minutes in the released configuration).
    UTF-8 bytes measure speech alike in all ten languages: one byte of English and a third of a Chinese character both
    take about one frame, so six frames per byte are far above the slowest speaker.
    """
    return 75 + 6 * len(text.encode())
