"""Bodies of requests and responses. Types and names are checked here, ranges by `SpeechRequest`."""

import dataclasses
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from deployments.http_errors import HttpError
from deployments.messages import ModelCard
from deployments.responses import AudioFormat
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import CustomVoice, DesignedVoice, SpeechRequest, Voice, default_sampling, draw_seed

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class VoiceId(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StrictStr


class SpeechBody(BaseModel):
    """POST /v1/audio/speech: OpenAI's fields, and the model's own sampling parameters.

    What is not given comes from the checkpoint's generation_config.json. `stream` false sends the whole file at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: StrictStr
    model: StrictStr | None = None
    voice: StrictStr | VoiceId | None = None
    language: StrictStr = LANGUAGE_AUTO
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
    non_streaming_mode: StrictBool = True

    def to_request(self, card: ModelCard) -> SpeechRequest:
        """Raises InvalidRequest naming the field that this model cannot take."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(GenerationDefaults)}
        given = {name: value for name, value in own.items() if value is not None}
        merged = dataclasses.replace(card.defaults, **given)
        talker, predictor = default_sampling(merged)
        return SpeechRequest(
            text=self.input,
            voice=self._voice(card),
            language=self.language,
            text_layout="whole" if self.non_streaming_mode else "streaming",
            sampling=talker,
            predictor_sampling=predictor,
            repetition_penalty=merged.repetition_penalty,
            seed=draw_seed() if self.seed is None else self.seed,
            max_frames=self.max_new_tokens,
        )

    def _voice(self, card: ModelCard) -> Voice:
        name = self.voice.id if isinstance(self.voice, VoiceId) else self.voice
        if card.model_type == "voice_design":
            if name is not None:
                raise InvalidRequest(
                    f"model {card.name} has no built-in voices; leave voice out and describe one in instructions",
                    "voice",
                    "voice_not_supported",
                )
            if not (self.instructions or "").strip():
                raise InvalidRequest(
                    f"model {card.name} designs a voice from its description: give one in instructions",
                    "instructions",
                    "missing_field",
                )
            return DesignedVoice(self.instructions or "")
        if name is None:
            raise InvalidRequest(
                f"voice is missing; voices of model {card.name}: {', '.join(card.speakers)}", "voice", "missing_field"
            )
        return CustomVoice(name, self.instructions or "")


def parse_speech(body: bytes) -> SpeechBody:
    """SpeechBody from JSON. Raises HttpError naming the field at fault and what it may be."""
    try:
        return SpeechBody.model_validate_json(body)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        # The second part names a member of a union (voice's string or object), which is no field of the caller's.
        field = str(fault["loc"][0]) if fault["loc"] else None
        match fault["type"]:
            case "json_invalid":
                raise HttpError(400, f"the body is not valid JSON: {fault['msg']}", code="invalid_json") from None
            case "extra_forbidden" if len(fault["loc"]) == 1:
                names = ", ".join(SpeechBody.model_fields)
                message, code = f"unknown field {field!r}; known fields: {names}", "unknown_field"
            case "missing":
                message, code = f"{field} is missing", "missing_field"
            case _ if field is None:
                message, code = "the body must be a JSON object", "invalid_body"
            case _:
                message, code = f"{field}: {fault['msg']}", "invalid_value"
        raise HttpError(400, message, param=field, code=code) from None
