"""The WebSocket protocol nari.speech.v1: text in as it is written, audio out from its first token on.

    server                                        client
    session.created {protocol, audio}
                                                  request.start {model, voice, language, ...}
    request.configured {request_id}
                                                  input_text.append {sequence: 0, text} ...
    input_text.ack {event, sequence, request_id}
    response.started {request_id, audio}, then binary messages: 16-bit PCM
                                                  input_text.end {sequence}
    response.done {request_id, stop_reason, audio_chunks}, close 1000

At any time the client may send response.cancel. Errors are {type: "error", request_id, error: {type, code, message}}
and close with 1002 (not this protocol), 1008 (refused), 1009 (too long) or 1011 (the server's fault).
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import NoReturn

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr
from pydantic_core import from_json
from starlette.websockets import WebSocketState

from deployments.http_errors import HttpError, to_http_error
from deployments.live_speech import STAND_IN, LiveSpeech
from deployments.schemas import SpeechBody, Utterance, parse_fields
from deployments.settings import IngressArgs
from deployments.text_inbox import text_timeout

PROTOCOL = "nari.speech.v1"
SAMPLE_RATE_HZ = 24000  # of every codec of this family; response.started has the model's own

_MOST_CHARACTERS = 400_000  # of a message; the longest holds a speaker embedding
_NOT_HERE = (
    "input", "stream", "stream_format", "sample_rate", "speed", "non_streaming_mode", "ref_audio", "references",
)  # fmt: skip


class _Append(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: StrictInt
    text: StrictStr


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: StrictInt


class NariSocket:
    """One connection, which is one utterance."""

    def __init__(
        self, socket: WebSocket, live_speech: Callable[[Utterance], Awaitable[LiveSpeech]], args: IngressArgs
    ) -> None:
        self._socket = socket
        self._live_speech = live_speech
        self._args = args
        self._id: str | None = None
        self._sequence = 0  # of the next event of text
        self._ended = False
        self._chunks = 0

    async def run(self) -> None:
        offered = self._socket.headers.get("sec-websocket-protocol", "")
        known = PROTOCOL in map(str.strip, offered.split(","))
        await self._socket.accept(subprotocol=PROTOCOL if known else None)
        try:
            if not known:
                _violation(f"offer the subprotocol {PROTOCOL}")
            await self._send("session.created", protocol=PROTOCOL, audio=_audio(SAMPLE_RATE_HZ))
            await self._utterance(await self._configure())
            await self._socket.close(1000)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await self._refuse(to_http_error(error))

    async def _configure(self) -> LiveSpeech:
        try:
            async with asyncio.timeout(self._args.live_text_timeout_s):
                kind, fields = await self._receive()
        except TimeoutError:
            raise text_timeout(self._args.live_text_timeout_s) from None
        if kind != "request.start":
            _violation(f"{kind} before request.start")
        for name in _NOT_HERE:
            if name in fields:
                raise HttpError(400, f"{name} is not for live text", param=name, code="field_not_accepted")
        if fields.setdefault("response_format", "pcm") != "pcm":
            raise HttpError(400, "response_format must be pcm", param="response_format", code="invalid_value")
        speech = await self._live_speech(parse_fields(SpeechBody, {**fields, "input": STAND_IN}).resolved())
        self._id = f"ws-{uuid.uuid4().hex}"
        await self._send("request.configured", request_id=self._id)
        return speech

    async def _utterance(self, speech: LiveSpeech) -> None:
        speaking = asyncio.create_task(self._speak(speech))
        reading = asyncio.create_task(self._read(speech))
        try:
            await asyncio.wait((speaking, reading), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                reason, chunks = speaking.result()
            else:
                reading.result()
                reason, chunks = "cancelled", self._chunks
        finally:
            for task in (speaking, reading):
                task.cancel()
            await asyncio.gather(speaking, reading, return_exceptions=True)
            speech.cancel()
        await self._send("response.done", request_id=self._id, stop_reason=reason, audio_chunks=chunks)

    async def _speak(self, speech: LiveSpeech) -> tuple[str, int]:
        """Send the audio. Returns why it ended, and the number of messages."""
        reason = None
        async for chunk in speech:
            if self._chunks == 0:
                await self._send("response.started", request_id=self._id, audio=_audio(speech.card.sample_rate_hz))
            if chunk.pcm:
                await self._socket.send_bytes(chunk.pcm)
                self._chunks += 1
            reason = chunk.finish_reason
        assert reason is not None, "the last chunk of a stream says why it ended"
        return reason, self._chunks

    async def _read(self, speech: LiveSpeech) -> None:
        """Take the client's events until it cancels."""
        while True:
            kind, fields = await self._receive()
            match kind:
                case "input_text.append":
                    append = parse_fields(_Append, fields)
                    self._expect(append.sequence)
                    await speech.append(append.text)
                    await self._acknowledge(kind, append.sequence)
                case "input_text.end":
                    end = parse_fields(_End, fields)
                    self._expect(end.sequence)
                    self._ended = True
                    await speech.finish()
                    await self._acknowledge(kind, end.sequence)
                case "response.cancel":
                    return
                case _:
                    _violation(f"{kind} is not expected here")

    def _expect(self, sequence: int) -> None:
        if self._ended:
            _violation("text after input_text.end")
        if sequence != self._sequence:
            _violation(f"sequence is {sequence}; {self._sequence} was expected")
        self._sequence += 1

    async def _receive(self) -> tuple[str, dict[str, object]]:
        """Type and fields of the client's next event."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            _violation("events are text messages")
        if len(text) > _MOST_CHARACTERS:
            raise HttpError(413, f"a message has at most {_MOST_CHARACTERS} characters", code="message_too_large")
        try:
            event = from_json(text)
        except ValueError:
            _violation("a message is not valid JSON")
        if not isinstance(event, dict) or not isinstance(kind := event.pop("type", None), str):
            _violation("an event is a JSON object with a type")
        return kind[:100], event

    async def _acknowledge(self, event: str, sequence: int) -> None:
        await self._send("input_text.ack", event=event, sequence=sequence, request_id=self._id)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send_json({"type": kind, **fields})

    async def _refuse(self, error: HttpError) -> None:
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        fault = {"type": error.type, "code": error.code, "message": error.message}
        await self._send("error", request_id=self._id, error=fault)
        await self._socket.close(_close_code(error))


def _audio(sample_rate_hz: int) -> dict[str, object]:
    return {"encoding": "pcm_s16le", "sample_rate": sample_rate_hz, "channels": 1}


def _violation(message: str) -> NoReturn:
    raise HttpError(400, message, code="protocol_error")


def _close_code(error: HttpError) -> int:
    if error.code == "protocol_error":
        return 1002
    if error.status == 413 or error.code == "input_too_long":
        return 1009
    return 1011 if error.status >= 500 else 1008
