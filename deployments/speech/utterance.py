"""Bodies of requests and responses. Types and names are checked here, ranges by `SpeechRequest` and `AudioEncoder`."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import PydanticCustomError, from_json

from deployments.audio.encoder import DEFAULT_FORMAT, AudioFormat
from deployments.errors import HttpError
from deployments.text.numbers import numbers_in_words
from deployments.wire.messages import ModelCard
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults, ModelType
from qwen_tts.request import SpeechRequest, Voice, default_sampling, draw_seed

TaskType = Literal["CustomVoice", "VoiceDesign", "Base"]
# vLLM-Omni's names of what a request asks for.
TASK_TYPES: Mapping[TaskType, ModelType] = {
    "CustomVoice": "custom_voice",
    "VoiceDesign": "voice_design",
    "Base": "base",
}

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


# An embedding is as wide as the talker; the widest has 2048.
SpeakerEmbedding = Annotated[list[Number], Field(min_length=1, max_length=16384, fail_fast=True)]
Name = Annotated[StrictStr, Field(max_length=256)]
Body = TypeVar("Body", bound=BaseModel)


def _only_one(value: object) -> object:
    """vLLM-Omni's clients may send a list of recordings."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise PydanticCustomError("one_recording", "give one recording, not a list of {count}", {"count": len(value)})
    return value[0]


class VoiceId(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name


class Reference(BaseModel):
    """A recording to clone from, and the words spoken in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio_path: StrictStr
    text: StrictStr | None = None


class SamplingFields(BaseModel):
    """What is not given comes from the checkpoint's generation_config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: StrictInt | None = None
    do_sample: StrictBool | None = None
    temperature: Number | None = None
    top_k: StrictInt | None = None
    top_p: Number | None = None
    repetition_penalty: Number | None = None
    subtalker_dosample: StrictBool | None = None
    subtalker_temperature: Number | None = None
    subtalker_top_k: StrictInt | None = None
    subtalker_top_p: Number | None = None
    max_new_tokens: StrictInt | None = Field(None, description="the most frames of 80 ms")


class UtteranceFields(SamplingFields):
    """How something is spoken: OpenAI's fields, vLLM-Omni's, and the model's own sampling parameters."""

    model: Name | None = None
    voice: Name | VoiceId | None = Field(None, description="a built-in or stored voice")
    speaker: Name | None = Field(None, description="the same as voice")
    task_type: TaskType | None = Field(None, description="checked against what the request asks for")
    language: Name = LANGUAGE_AUTO
    normalize_text: StrictBool = Field(False, description="numbers to words of the language")
    instructions: StrictStr | None = Field(None, description="style of a built-in voice, or a voice's description")
    response_format: AudioFormat = DEFAULT_FORMAT
    sample_rate: StrictInt | None = Field(None, description="Hz; the model's own, or telephony's 8000, unless given")
    speed: Number = Field(1.0, description="0.25 to 4, the pitch kept")
    non_streaming_mode: StrictBool | None = Field(None, description="the prompt holds all of the text")
    initial_codec_chunk_frames: StrictInt | None = Field(None, description="frames of the first piece; 0: the server's")
    ref_audio: Annotated[StrictStr, BeforeValidator(_only_one, json_schema_input_type=str | list[str])] | None = Field(
        None, description="a recording to clone: base64, a data: URL or an https: URL"
    )
    ref_text: StrictStr | None = Field(None, description="the words spoken in ref_audio")
    x_vector_only_mode: StrictBool = Field(False, description="clone the sound of the voice alone")
    speaker_embedding: SpeakerEmbedding | None = None
    references: Annotated[list[Reference], Field(min_length=1, max_length=1)] | None = Field(
        None, description="the same as ref_audio and ref_text"
    )
    extra_params: SamplingFields | None = Field(None, description="the same as these fields of the request itself")


class Utterance(UtteranceFields):
    """The one request type: what every protocol's adapter makes of its own."""

    input: StrictStr

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice

    @property
    def sent_as(self) -> dict[str, str]:
        """What the caller called a field, where that is another of its names."""
        names = {}
        if self.speaker is not None:
            names["voice"] = "speaker"
        if self.references is not None:
            names |= dict.fromkeys(("ref_audio", "ref_text"), "references")
        if self.speaker_embedding is not None:
            names["voice"] = "speaker_embedding"
        return names

    def resolved(self) -> Self:
        """With fields that were sent by another name in their places. Raises HttpError where two names were used."""
        extra = {} if self.extra_params is None else self.extra_params.model_dump(exclude_none=True)
        aliases: list[tuple[str, str, object]] = [
            (name, f"extra_params.{name}", value) for name, value in extra.items()
        ]
        if self.speaker is not None:
            aliases.append(("voice", "speaker", self.speaker))
        if self.references is not None:
            aliases.append(("ref_audio", "references", self.references[0].audio_path))
            aliases.append(("ref_text", "references", self.references[0].text))
        for name, alias, _ in aliases:
            if getattr(self, name) is not None:
                raise HttpError(400, f"{name} and {alias} exclude each other", param=alias, code="conflicting_fields")
        return self.model_copy(update={name: value for name, _, value in aliases})

    def to_request(self, card: ModelCard, voice: Voice) -> SpeechRequest:
        """Raises InvalidRequest naming the field that this model cannot take."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(GenerationDefaults)}
        given = {name: value for name, value in own.items() if value is not None}
        merged = dataclasses.replace(card.defaults, **given)
        talker, predictor = default_sampling(merged)
        # The released models' own habits: clones hear their text word by word, the others read all of it first.
        whole = card.model_type != "base" if self.non_streaming_mode is None else self.non_streaming_mode
        return SpeechRequest(
            text=numbers_in_words(self.input, self.language) if self.normalize_text else self.input,
            voice=voice,
            language=self.language,
            text_layout="whole" if whole else "streaming",
            sampling=talker,
            predictor_sampling=predictor,
            repetition_penalty=merged.repetition_penalty,
            seed=draw_seed() if self.seed is None else self.seed,
            max_frames=self.max_new_tokens,
            first_chunk_frames=self.initial_codec_chunk_frames or None,
        )


class SpeechBody(Utterance):
    """POST /v1/audio/speech. `stream` false sends the whole file at once; `stream_format` sse sends events."""

    stream: StrictBool = Field(True, description="bytes of audio as they are made")
    stream_format: Literal["audio", "sse"] | None = Field(None, description="bytes of audio, or server-sent events")


class DesignBody(BaseModel):
    """POST /v1/audio/voices/design. With `name` the best candidate is stored; without, all are previews."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: StrictStr
    input: StrictStr
    language: Name = LANGUAGE_AUTO
    model: Name | None = None
    candidates: Annotated[StrictInt, Field(ge=1)] = 1
    seed: StrictInt | None = None
    max_new_tokens: StrictInt | None = None
    name: StrictStr | None = None
    overwrite: StrictBool = False


class KeepBody(BaseModel):
    """POST /v1/audio/voices/design/{preview id}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr
    overwrite: StrictBool = False


class RenameBody(BaseModel):
    """POST /v1/audio/voice_consents/{consent id}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name


# Fields that are objects or lists of objects.
_NESTED: Mapping[str, type[BaseModel]] = {"voice": VoiceId, "extra_params": SamplingFields, "references": Reference}


def parse_body(kind: type[Body], body: bytes) -> Body:
    """A `kind` from JSON. Raises HttpError naming the field at fault and what it may be."""
    return parse_fields(kind, parse_object(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises HttpError unless `body` is a JSON object."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise HttpError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise HttpError(400, "the body must be a JSON object", code="invalid_body")
    return fields


def parse_fields(kind: type[Body], fields: Mapping[str, Any]) -> Body:
    """Raises HttpError naming the field at fault and what it may be."""
    # Before validation, which would make an error of every unknown field of a million.
    _refuse_unknown(kind, fields)
    for name, nested in _NESTED.items():
        for value in fields[name][:1] if isinstance(fields.get(name), list) else [fields.get(name)]:
            if name in kind.model_fields and isinstance(value, dict):
                _refuse_unknown(nested, value, f"{name}.")
    try:
        return kind.model_validate(fields)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        # What follows may name a member of a union (voice's string or object), which is no field of the caller's.
        field = str(fault["loc"][0])
        path = field if field == "voice" else ".".join(map(str, fault["loc"]))
        if fault["type"] == "missing":
            message, code = f"{path} is missing", "missing_field"
        else:
            message, code = f"{path}: {fault['msg']}", "invalid_value"
        raise HttpError(400, message, param=field, code=code) from None


def _refuse_unknown(kind: type[BaseModel], fields: Mapping[str, Any], prefix: str = "") -> None:
    if (unknown := next((name for name in fields if name not in kind.model_fields), None)) is not None:
        name = prefix + unknown[:100]
        message = f"unknown field {name!r}; known fields: {', '.join(kind.model_fields)}"
        raise HttpError(400, message, param=name, code="unknown_field")
