"""The fields that OpenAI's and vLLM-Omni's clients send, shared by the protocols that accept them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr
from pydantic_core import PydanticCustomError

from deployments.speech.fields import Name, SamplingFields, SpeechFields
from deployments.wire.messages import ModelCard
from qwen_tts.config import ModelType
from qwen_tts.errors import InvalidRequest

TaskType = Literal["CustomVoice", "VoiceDesign", "Base"]
# vLLM-Omni's names of the types of models.
TASK_TYPES: Mapping[TaskType, ModelType] = {
    "CustomVoice": "custom_voice",
    "VoiceDesign": "voice_design",
    "Base": "base",
}


class VoiceId(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name


class Reference(BaseModel):
    """A recording to clone from, and the words spoken in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio_path: StrictStr
    text: StrictStr | None = None


def _voice_name(value: object) -> object:
    """Return the name in OpenAI's `{"id": name}`, and any other value unchanged."""
    if not isinstance(value, dict):
        return value
    if list(value) != ["id"] or value["id"] is None:
        raise PydanticCustomError("voice_id", 'send the name of a voice, or {"id": name}')
    return value["id"]


def _only_one(value: object) -> object:
    """Return the recording in a list of one, which vLLM-Omni accepts, and any other value unchanged."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise PydanticCustomError("one_recording", "send one recording, not a list of {count}", {"count": len(value)})
    return value[0]


class UtteranceFields(SpeechFields):
    """The fields of an utterance: OpenAI's, vLLM-Omni's, and the model's own sampling parameters."""

    voice: Annotated[Name | None, BeforeValidator(_voice_name, json_schema_input_type=Name | VoiceId | None)] = Field(
        None, description="a built-in or stored voice"
    )
    speaker: Name | None = Field(None, description="the same as voice")
    task_type: TaskType | None = Field(None, description="checked against what the request asks for")
    ref_audio: Annotated[StrictStr, BeforeValidator(_only_one, json_schema_input_type=str | list[str])] | None = Field(
        None, description="a recording to clone: base64, a data: URL or an https: URL"
    )
    references: Annotated[list[Reference], Field(min_length=1, max_length=1)] | None = Field(
        None, description="the same as ref_audio and ref_text"
    )
    extra_params: SamplingFields | None = Field(None, description="the same as these fields of the request itself")

    @property
    def sent_as(self) -> dict[str, str]:
        """Return the caller's names of fields, where the caller used another name than SpeechFields."""
        names = {}
        if self.speaker is not None:
            names["voice"] = "speaker"
        if self.references is not None:
            names |= dict.fromkeys(("ref_audio", "ref_text"), "references")
        if self.speaker_embedding is not None:
            names["voice"] = "speaker_embedding"
        return names

    def resolved(self) -> SpeechFields:
        """Return the fields under this service's names. Raises InvalidRequest if one field was sent under two names."""
        extra = {} if self.extra_params is None else self.extra_params.model_dump(exclude_none=True)
        aliases: list[tuple[str, str, object]] = [
            (name, f"extra_params.{name}", value) for name, value in extra.items()
        ]
        if self.speaker is not None:
            aliases.append(("voice", "speaker", self.speaker))
        if self.references is not None:
            aliases.append(("ref_audio", "references", self.references[0].audio_path))
            aliases.append(("ref_text", "references", self.references[0].text))
        fields = {name: getattr(self, name) for name in SpeechFields.model_fields}
        for name, alias, value in aliases:
            if fields[name] is not None:
                raise InvalidRequest(f"{name} and {alias} exclude each other", alias, "conflicting_fields")
            fields[name] = value
        return SpeechFields.model_construct(**fields)

    def check_task(self, card: ModelCard) -> None:
        """Raise InvalidRequest if `task_type` is not the type of the model that speaks."""
        if self.task_type is None or TASK_TYPES[self.task_type] == card.model_type:
            return
        meant = next(task for task, kind in TASK_TYPES.items() if kind == card.model_type)
        message = (
            f"task_type is {self.task_type}, but the request asks for {meant} (model {card.name}); omit task_type "
            "or correct it"
        )
        raise InvalidRequest(message, "task_type", "conflicting_fields")
