"""The translation of ElevenLabs' fields to SpeechFields, and the shapes of its answers.

Fields that steer ElevenLabs' own models are accepted and have no effect, because its clients send them by default.
Unsupported fields that would change the audio are refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr
from pydantic_core import PydanticCustomError

from deployments.audio.encoder import SAMPLE_RATES_HZ, AudioFormat
from deployments.errors import Refusal, renamed_fields
from deployments.http.bodies import parse_fields
from deployments.speech.fields import Name, Number, SamplingFields, SpeechFields
from deployments.text.languages import LANGUAGE_CODES
from qwen_tts.config import LANGUAGE_AUTO
from qwen_tts.errors import InvalidRequest

DEFAULT_OUTPUT_FORMAT = "mp3_44100_128"
_MP3 = ((22050, 32), (24000, 48), *((44100, kbit_s) for kbit_s in (32, 64, 96, 128, 192)))
# The bit rates are only part of the names: MP3 and Opus have the encoder's own bit rates.
OUTPUT_FORMATS: Mapping[str, tuple[AudioFormat, int]] = {
    **{f"mp3_{rate_hz}_{kbit_s}": ("mp3", rate_hz) for rate_hz, kbit_s in _MP3},
    **{f"opus_48000_{kbit_s}": ("opus", 48000) for kbit_s in (32, 64, 96, 128, 192)},
    **{f"pcm_{rate_hz}": ("pcm", rate_hz) for rate_hz in SAMPLE_RATES_HZ},
    **{f"wav_{rate_hz}": ("wav", rate_hz) for rate_hz in SAMPLE_RATES_HZ},
    "ulaw_8000": ("mulaw", 8000),
    "alaw_8000": ("alaw", 8000),
}

LANGUAGES = {code: language for language, code in LANGUAGE_CODES.items()}

# ElevenLabs' names of SpeechFields.
SENT_AS = {
    "input": "text",
    "voice": "voice_id",
    "model": "model_id",
    "language": "language_code",
    "speed": "voice_settings.speed",
}
# ElevenLabs' names of this service's codes of errors.
_STATUSES = {
    "unknown_voice": "voice_not_found",
    "input_too_long": "max_character_limit_exceeded",
    "idle_timeout": "input_timeout_exceeded",
    "text_timeout": "input_timeout_exceeded",
}


def _nothing(value: object) -> object:
    if value:
        raise PydanticCustomError("not_supported", "not supported by this service; omit it")
    return value


_Declined = AfterValidator(_nothing)
Declined = Annotated[object, _Declined, Field(description="not supported: null, or empty")]
DeclinedFlag = Annotated[bool, _Declined]


class VoiceSettings(BaseModel):
    """Settings of the speech. `speed` is applied. The others steer ElevenLabs' own models and have no effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed: Number | None = None
    stability: Number | None = None
    similarity_boost: Number | None = None
    style: Number | None = None
    use_speaker_boost: StrictBool | None = None
    clone_strength: Number | None = None


class SpokenFields(SamplingFields):
    """ElevenLabs' fields of an utterance, and the model's own sampling parameters."""

    voice_settings: VoiceSettings | None = None
    pronunciation_dictionary_locators: Declined = None


class ConvertBody(SpokenFields):
    """POST /v1/text-to-speech/{voice_id}."""

    text: StrictStr
    model_id: Name | None = None
    language_code: Name | None = Field(None, description=f"one of {', '.join(LANGUAGES)}; detected unless given")
    apply_text_normalization: Literal["auto", "off"] | None = Field(None, description="text is spoken as it is written")
    apply_language_text_normalization: Declined = None
    previous_text: Declined = None
    next_text: Declined = None
    previous_request_ids: Declined = None
    next_request_ids: Declined = None
    use_pvc_as_ivc: Declined = None
    audio_effects: Declined = None


def speech_fields(
    spoken: SpokenFields,
    *,
    voice_id: str,
    model_id: str | None,
    language_code: str | None,
    output_format: str,
) -> SpeechFields:
    """Return ElevenLabs' fields under this service's names. Raises InvalidRequest."""
    if output_format not in OUTPUT_FORMATS:
        message = f"output_format {output_format[:100]!r} is unknown; known: {', '.join(OUTPUT_FORMATS)}"
        raise InvalidRequest(message, "output_format", "invalid_output_format")
    if language_code is not None and language_code not in LANGUAGES:
        message = f"language_code {language_code[:100]!r} is not supported; supported: {', '.join(LANGUAGES)}"
        raise InvalidRequest(message, "language_code", "unsupported_language")
    audio_format, sample_rate_hz = OUTPUT_FORMATS[output_format]
    settings = spoken.voice_settings or VoiceSettings()
    fields = {
        "voice": voice_id,
        "model": model_id,
        "language": LANGUAGE_AUTO if language_code is None else LANGUAGES[language_code],
        "response_format": audio_format,
        "sample_rate": sample_rate_hz,
        "speed": 1.0 if settings.speed is None else settings.speed,
    }
    with renamed_fields(SENT_AS):
        return parse_fields(SpeechFields, fields | spoken.model_dump(include=set(SamplingFields.model_fields)))


def status_of(refusal: Refusal) -> str:
    """Return ElevenLabs' name of that kind of error, or this service's code if ElevenLabs has none."""
    code = refusal.code or refusal.type
    return _STATUSES.get(code, code)


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal in ElevenLabs' shape."""
    return {"detail": {"status": status_of(refusal), "message": refusal.message}}


class ElevenLabsErrorDetail(BaseModel):
    status: str
    message: str


class ElevenLabsErrorAnswer(BaseModel):
    detail: ElevenLabsErrorDetail


class ElevenLabsVoice(BaseModel):
    voice_id: str
    name: str
    category: Literal["premade", "cloned", "generated"]
    description: str | None = None
    labels: dict[str, str] = {}


class ElevenLabsVoices(BaseModel):
    voices: list[ElevenLabsVoice]
