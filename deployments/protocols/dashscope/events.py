"""Events of DashScope's qwen-tts-realtime: those that clients send, and those that report a response."""

import base64
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr

from deployments.audio.encoder import AudioFormat
from deployments.http.bodies import parse_fields
from deployments.speech.fields import Name, Number, SamplingFields, SpeechFields
from qwen_tts.config import LANGUAGE_AUTO
from qwen_tts.errors import InvalidRequest

Mode = Literal["server_commit", "commit"]
Status = Literal["in_progress", "completed", "incomplete", "failed"]

# DashScope's names of SpeechFields.
SENT_AS = {"input": "text", "language": "language_type", "speed": "speech_rate"}


class SessionFields(SamplingFields):
    """The `session` of session.update: DashScope's fields, and the model's own sampling parameters."""

    voice: Name | None = None
    mode: Mode = "server_commit"
    language_type: Name = LANGUAGE_AUTO
    response_format: AudioFormat = "pcm"
    sample_rate: StrictInt | None = 24000
    speech_rate: Number = 1.0
    instructions: StrictStr | None = None
    # Accepted with their defaults only:
    volume: StrictInt = 50
    pitch_rate: Number = 1.0
    bit_rate: StrictInt | None = None
    optimize_instructions: StrictBool = False
    enable_tn: StrictBool = False

    def shown(self, session_id: str, model: str) -> dict[str, object]:
        """Return the session as events show it."""
        names = ("voice", "mode", "language_type", "response_format", "sample_rate")
        fields = {name: getattr(self, name) for name in names}
        return {"object": "realtime.session", "id": session_id, "model": model, **fields}

    def speech(self, model: str | None) -> SpeechFields:
        """Return the fields under this service's names. Raises InvalidRequest."""
        for name in ("volume", "pitch_rate", "bit_rate", "optimize_instructions", "enable_tn"):
            only = type(self).model_fields[name].default
            if getattr(self, name) != only:
                hint = "omit it" if only is None else f"omit it or send {only}"
                raise InvalidRequest(f"{name} is not supported by this service; {hint}", name, "field_not_supported")
        sampling = {name: getattr(self, name) for name in SamplingFields.model_fields}
        return SpeechFields(
            model=model,
            voice=self.voice,
            language=self.language_type,
            response_format=self.response_format,
            sample_rate=self.sample_rate,
            speed=self.speech_rate,
            instructions=self.instructions,
            **sampling,
        )


class _ClientEvent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    event_id: Name | None = None


class SessionUpdate(_ClientEvent):
    session: dict[str, Any]


class Append(_ClientEvent):
    text: StrictStr


class Plain(_ClientEvent):
    """An event without fields of its own."""


def updated(session: SessionFields, update: Mapping[str, Any]) -> SessionFields:
    """Return `session` with the fields of `update`. A null counts as absent. Raises InvalidRequest."""
    given = session.model_dump(exclude_unset=True) | {
        name: value for name, value in update.items() if value is not None
    }
    return parse_fields(SessionFields, given)


def new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


class ResponseEvents:
    """The events of one response, which has one item of one part."""

    def __init__(self, conversation_id: str, voice: str | None) -> None:
        self._item_id = new_id("item")
        self._response = {
            "id": new_id("resp"),
            "object": "realtime.response",
            "conversation_id": conversation_id,
            "voice": voice,
        }
        self._place = {"response_id": self._response["id"], "output_index": 0}
        self._part_place = {**self._place, "item_id": self._item_id, "content_index": 0}

    def committed(self) -> dict[str, object]:
        return {"type": "input_text_buffer.committed", "item_id": self._item_id}

    def beginning(self) -> list[dict[str, object]]:
        part = {"type": "audio", "text": ""}
        return [
            {"type": "response.created", "response": {**self._response, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", **self._place, "item": self._item("in_progress")},
            {"type": "response.content_part.added", **self._part_place, "part": part},
        ]

    def delta(self, piece: bytes) -> dict[str, object]:
        return {"type": "response.audio.delta", **self._part_place, "delta": base64.b64encode(piece).decode()}

    def ending(self, status: Status, characters: int) -> list[dict[str, object]]:
        part = {"type": "audio", "text": ""}
        item = self._item(status, part)
        response = {
            **self._response,
            "status": status,
            "modalities": ["audio"],
            "output": [item],
            "usage": {"characters": characters},
        }
        return [
            {"type": "response.audio.done", **self._part_place},
            {"type": "response.content_part.done", **self._part_place, "part": part},
            {"type": "response.output_item.done", **self._place, "item": item},
            {"type": "response.done", "response": response},
        ]

    def _item(self, status: Status, *content: dict[str, str]) -> dict[str, object]:
        return {
            "id": self._item_id,
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": list(content),
        }
