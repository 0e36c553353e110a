"""Bodies of requests, as OpenAI's and vLLM-Omni's clients send them. Only names and types are checked here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from deployments.protocols.fields import UtteranceFields
from deployments.speech.design import VoiceDescription
from deployments.speech.fields import Name
from deployments.speech.terms import Priority
from qwen_tts.config import LANGUAGE_AUTO


class Utterance(UtteranceFields):
    """A text to speak, and the fields that say how."""

    input: StrictStr


class SpeechBody(Utterance):
    """POST /v1/audio/speech. `stream` false sends the whole file at once; `stream_format` sse sends events."""

    stream: StrictBool = Field(True, description="bytes of audio as they are made")
    stream_format: Literal["audio", "sse"] | None = Field(None, description="bytes of audio, or server-sent events")


class DesignBody(BaseModel):
    """POST /v1/audio/voices/design. With `name` the first candidate without a flaw is stored as a voice."""

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
    priority: Priority = "interactive"

    @property
    def wanted(self) -> VoiceDescription:
        return VoiceDescription(
            self.description,
            self.input,
            self.language,
            self.model,
            self.candidates,
            self.seed,
            self.max_new_tokens,
        )


class KeepBody(BaseModel):
    """POST /v1/audio/voices/design/{preview id}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr
    overwrite: StrictBool = False


class RenameBody(BaseModel):
    """POST /v1/audio/voice_consents/{consent id}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
