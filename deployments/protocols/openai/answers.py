"""Bodies of answers, as callers and /openapi.json see them."""

import base64
from typing import Literal

from pydantic import BaseModel

from deployments.speech.design import Candidate
from deployments.voices.consents import ConsentRecord
from deployments.voices.record import Source, VoiceRecord
from deployments.wire.messages import Usage
from qwen_tts.config import ModelType
from qwen_tts.request import FinishReason


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    models: list[str]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["qwen-tts"] = "qwen-tts"
    type: ModelType


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class InputTokenDetails(BaseModel):
    text_tokens: int
    audio_tokens: int


class UsageObject(BaseModel):
    """Counts of the input (text tokens and reference frames) and the output (speech frames). A frame is 80 ms."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokenDetails


class BatchResult(BaseModel):
    """The result of one item, in the order of the items. It has either audio or an error."""

    index: int
    status: Literal["success", "error"]
    audio_data: str | None = None  # base64
    media_type: str | None = None
    finish_reason: FinishReason | None = None
    model: str | None = None
    seed: int | None = None
    usage: UsageObject | None = None
    error: str | None = None
    error_param: str | None = None
    error_code: str | None = None


class BatchAnswer(BaseModel):
    id: str
    results: list[BatchResult]
    total: int
    succeeded: int
    failed: int


class BuiltInVoice(BaseModel):
    id: str
    object: Literal["audio.voice"] = "audio.voice"
    model: str
    languages: list[str]


class StoredVoice(BaseModel):
    """OpenAI's audio.voice with vLLM-Omni's fields."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    created_at: int
    type: Literal["audio_sample", "prompt"]
    source: Source
    consent: str
    ref_text: str | None
    speaker_description: str | None
    mime_type: str
    file_size: int
    owner: str | None  # the name of the API key that stored it


class VoiceList(BaseModel):
    object: Literal["list"] = "list"
    voices: list[str]
    data: list[BuiltInVoice | StoredVoice]
    uploaded_voices: list[StoredVoice]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False


class UploadedVoice(StoredVoice):
    success: Literal[True] = True
    voice: StoredVoice


class VoiceDeleted(BaseModel):
    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: Literal[True] = True
    success: Literal[True] = True


class Preview(BaseModel):
    """A candidate of a voice design. `audio` is a WAV file in base64. `flaw` says why it is unfit to clone from."""

    object: Literal["audio.voice_preview"] = "audio.voice_preview"
    id: str | None
    chosen: bool | None
    seed: int
    finish_reason: FinishReason
    flaw: str | None
    audio: str


class PreviewList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Preview]


class DesignedVoiceAnswer(StoredVoice):
    previews: list[Preview]


class Consent(BaseModel):
    id: str
    object: Literal["audio.voice_consent"] = "audio.voice_consent"
    created_at: int
    name: str
    language: str
    owner: str | None  # the name of the API key that stored it


class ConsentList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Consent]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConsentDeleted(BaseModel):
    id: str
    object: Literal["audio.voice_consent"] = "audio.voice_consent"
    deleted: Literal[True] = True


def usage_object(usage: Usage) -> UsageObject:
    return UsageObject(
        input_tokens=usage.input_tokens,
        output_tokens=usage.frames,
        total_tokens=usage.input_tokens + usage.frames,
        input_token_details=InputTokenDetails(text_tokens=usage.text_tokens, audio_tokens=usage.reference_frames),
    )


def show_voice(record: VoiceRecord) -> StoredVoice:
    return StoredVoice(
        id=record.name,
        name=record.name,
        created_at=record.created_at,
        type="audio_sample" if record.source == "upload" else "prompt",
        source=record.source,
        consent=record.consent,
        ref_text=record.ref_text,
        speaker_description=record.description,
        mime_type=record.mime_type,
        file_size=record.audio_bytes,
        owner=record.owner,
    )


def show_preview(candidate: Candidate, *, chosen: bool | None = None) -> Preview:
    return Preview(
        id=candidate.preview_id,
        chosen=chosen,
        seed=candidate.seed,
        finish_reason=candidate.finish_reason,
        flaw=candidate.flaw,
        audio=base64.b64encode(candidate.wav).decode(),
    )


def show_consent(record: ConsentRecord) -> Consent:
    return Consent(
        id=record.id,
        created_at=record.created_at,
        name=record.name,
        language=record.language,
        owner=record.owner,
    )
