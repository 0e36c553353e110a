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
import math
import uuid

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from deployments.errors import HttpError
from deployments.protocols.sockets import EventSocket, violation
from deployments.settings import IngressArgs
from deployments.speech.live_speech import STAND_IN, LiveSpeech
from deployments.speech.order import Speaker
from deployments.speech.utterance import SpeechBody, parse_fields

PROTOCOL = "nari.speech.v1"
SAMPLE_RATE_HZ = 24000  # of every codec of this family; response.started has the model's own

_LONGEST_MESSAGE_BYTES = 400_000  # which holds a speaker embedding
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

    def __init__(self, socket: WebSocket, speaker: Speaker, args: IngressArgs) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._offered = socket.headers.get("sec-websocket-protocol", "")
        self._speaker = speaker
        self._args = args
        self._id: str | None = None
        self._sequence = 0  # of the next event of text
        self._ended = False
        self._chunks = 0

    async def run(self) -> None:
        known = PROTOCOL in map(str.strip, self._offered.split(","))
        async with self._socket.conversation(self._refuse, PROTOCOL if known else None):
            if not known:
                violation(f"offer the subprotocol {PROTOCOL}")
            await self._send("session.created", protocol=PROTOCOL, audio=_audio(SAMPLE_RATE_HZ))
            await self._utterance(await self._configure())

    async def _configure(self) -> LiveSpeech:
        kind, fields = await self._socket.receive(self._args.live_text_timeout_s)
        if kind != "request.start":
            violation(f"{kind} before request.start")
        for name in _NOT_HERE:
            if name in fields:
                raise HttpError(400, f"{name} is not for live text", param=name, code="field_not_accepted")
        if fields.setdefault("response_format", "pcm") != "pcm":
            raise HttpError(400, "response_format must be pcm", param="response_format", code="invalid_value")
        body = parse_fields(SpeechBody, {**fields, "input": STAND_IN}).resolved()
        speech = self._speaker.speak_live(await self._speaker.order(body))
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
            kind, fields = await self._socket.receive(math.inf)  # a text that pauses ends the speech
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
                    violation(f"{kind} is not expected here")

    def _expect(self, sequence: int) -> None:
        if self._ended:
            violation("text after input_text.end")
        if sequence != self._sequence:
            violation(f"sequence is {sequence}; {self._sequence} was expected")
        self._sequence += 1

    async def _acknowledge(self, event: str, sequence: int) -> None:
        await self._send("input_text.ack", event=event, sequence=sequence, request_id=self._id)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send({"type": kind, **fields})

    async def _refuse(self, error: HttpError) -> None:
        fault = {"type": error.type, "code": error.code, "message": error.message}
        await self._send("error", request_id=self._id, error=fault)


def _audio(sample_rate_hz: int) -> dict[str, object]:
    return {"encoding": "pcm_s16le", "sample_rate": sample_rate_hz, "channels": 1}
