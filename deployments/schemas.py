"""Bodies of requests and responses. Types and names are checked here, ranges by `SpeechRequest`."""

import dataclasses
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import from_json

from deployments.http_errors import HttpError
from deployments.messages import ModelCard
from deployments.responses import AudioFormat
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.request import SpeechRequest, Voice, default_sampling, draw_seed

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


# An embedding is as wide as the talker; the widest has 2048.
SpeakerEmbedding = Annotated[list[Number], Field(min_length=1, max_length=16384, fail_fast=True)]
Name = Annotated[StrictStr, Field(max_length=256)]
Body = TypeVar("Body", bound=BaseModel)


class VoiceId(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name


class SpeechBody(BaseModel):
    """POST /v1/audio/speech: OpenAI's fields, and the model's own sampling parameters.

    What is not given comes from the checkpoint's generation_config.json. `stream` false sends the whole file at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: StrictStr
    model: Name | None = None
    voice: Name | VoiceId | None = None
    language: Name = LANGUAGE_AUTO
    instructions: StrictStr | None = None
    response_format: AudioFormat = "wav"
    stream: StrictBool = True
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
    max_new_tokens: StrictInt | None = None
    non_streaming_mode: StrictBool | None = None
    ref_audio: StrictStr | None = None
    ref_text: StrictStr | None = None
    x_vector_only_mode: StrictBool = False
    speaker_embedding: SpeakerEmbedding | None = None

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice

    def to_request(self, card: ModelCard, voice: Voice) -> SpeechRequest:
        """Raises InvalidRequest naming the field that this model cannot take."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(GenerationDefaults)}
        given = {name: value for name, value in own.items() if value is not None}
        merged = dataclasses.replace(card.defaults, **given)
        talker, predictor = default_sampling(merged)
        # The released models' own habits: clones hear their text word by word, the others read all of it first.
        whole = card.model_type != "base" if self.non_streaming_mode is None else self.non_streaming_mode
        return SpeechRequest(
            text=self.input,
            voice=voice,
            language=self.language,
            text_layout="whole" if whole else "streaming",
            sampling=talker,
            predictor_sampling=predictor,
            repetition_penalty=merged.repetition_penalty,
            seed=draw_seed() if self.seed is None else self.seed,
            max_frames=self.max_new_tokens,
        )


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


def parse_body(kind: type[Body], body: bytes) -> Body:
    """A `kind` from JSON. Raises HttpError naming the field at fault and what it may be."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise HttpError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise HttpError(400, "the body must be a JSON object", code="invalid_body")
    # Before validation, which would make an error of every unknown field of a million.
    if (unknown := next((name for name in fields if name not in kind.model_fields), None)) is not None:
        message = f"unknown field {unknown[:100]!r}; known fields: {', '.join(kind.model_fields)}"
        raise HttpError(400, message, param=unknown[:100], code="unknown_field")
    try:
        return kind.model_validate(fields)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        # The second part names a member of a union (voice's string or object), which is no field of the caller's.
        field = str(fault["loc"][0])
        if fault["type"] == "missing":
            message, code = f"{field} is missing", "missing_field"
        else:
            message, code = f"{field}: {fault['msg']}", "invalid_value"
        raise HttpError(400, message, param=field, code=code) from None
