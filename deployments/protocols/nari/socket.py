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

import math
import uuid

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from deployments.access.limits import CallerLimits
from deployments.errors import Refusal
from deployments.http.bodies import parse_fields
from deployments.http.gate import caller_of
from deployments.protocols.fields import UtteranceFields
from deployments.protocols.sockets import EventSocket, until_one_ends, violation
from deployments.protocols.speaker import Speaker
from deployments.speech.live_speech import LiveText
from deployments.speech.service import ResolvedSpeech, SpeechService
from qwen_tts.errors import InvalidRequest

PROTOCOL = "nari.speech.v1"
SAMPLE_RATE_HZ = 24000  # of every codec of this family; response.started has the model's own

_LONGEST_MESSAGE_BYTES = 400_000  # enough for a speaker embedding
_NOT_HERE = (
    "input", "stream", "stream_format", "sample_rate", "speed", "non_streaming_mode", "ref_audio", "references",
)  # fmt: skip


def routes(service: SpeechService, limits: CallerLimits) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/audio/speech/ws")
    async def nari(socket: WebSocket) -> None:
        await NariSocket(socket, Speaker(service, limits, caller_of(socket))).run()

    return router


class _Append(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: StrictInt
    text: StrictStr


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: StrictInt


class NariSocket:
    """One connection, which is one utterance."""

    def __init__(self, socket: WebSocket, speaker: Speaker) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._offered = socket.headers.get("sec-websocket-protocol", "")
        self._speaker = speaker
        self._id: str | None = None
        self._sequence = 0  # of the next event of text
        self._chunks = 0
        self._stop_reason = "cancelled"

    async def run(self) -> None:
        known = PROTOCOL in map(str.strip, self._offered.split(","))
        async with self._socket.conversation(self._refuse, PROTOCOL if known else None):
            if not known:
                violation(f"offer the subprotocol {PROTOCOL}")
            await self._send("session.created", protocol=PROTOCOL, audio=_audio(SAMPLE_RATE_HZ))
            speech = await self._configure()
            text = self._speaker.live_text()
            await until_one_ends(self._speak(speech, text), self._read(text))
            reason, chunks = self._stop_reason, self._chunks
            await self._send("response.done", request_id=self._id, stop_reason=reason, audio_chunks=chunks)

    async def _configure(self) -> ResolvedSpeech:
        kind, fields = await self._socket.receive(self._speaker.args.live_text_timeout_s)
        if kind != "request.start":
            violation(f"{kind} before request.start")
        for name in _NOT_HERE:
            if name in fields:
                raise InvalidRequest(f"{name} is not supported for live text; omit it", name, "field_not_accepted")
        if fields.setdefault("response_format", "pcm") != "pcm":
            raise InvalidRequest("response_format must be pcm", "response_format", "invalid_value")
        body = parse_fields(UtteranceFields, fields)
        speech = await self._speaker.resolve(body.resolved(), body.sent_as)
        body.check_task(speech.card)
        self._speaker.check_live(speech)
        self._id = f"ws-{uuid.uuid4().hex}"
        await self._send("request.configured", request_id=self._id)
        return speech

    async def _speak(self, speech: ResolvedSpeech, text: LiveText) -> None:
        """Send the audio."""
        started = False
        async with self._speaker.speak_live(speech, text) as pieces:
            async for piece in pieces:
                if not started:
                    started = True
                    audio = _audio(pieces.output.rate_hz)
                    await self._send("response.started", request_id=self._id, audio=audio)
                if piece:
                    await self._socket.send_bytes(piece)
                    self._chunks += 1
            self._stop_reason = pieces.finish_reason

    async def _read(self, text: LiveText) -> None:
        """Accept the client's events until it cancels."""
        while True:
            kind, fields = await self._socket.receive(math.inf)  # a text that pauses ends the speech
            match kind:
                case "input_text.append":
                    append = parse_fields(_Append, fields)
                    self._expect(append.sequence, text)
                    text.append(append.text)
                    await self._acknowledge(kind, append.sequence)
                case "input_text.end":
                    end = parse_fields(_End, fields)
                    self._expect(end.sequence, text)
                    text.end()
                    if not text.blank:  # otherwise the speech refuses it
                        await self._acknowledge(kind, end.sequence)
                case "response.cancel":
                    return
                case _:
                    violation(f"{kind} is not expected here")

    def _expect(self, sequence: int, text: LiveText) -> None:
        if text.ended:
            violation("text after input_text.end")
        if sequence != self._sequence:
            violation(f"sequence is {sequence}; {self._sequence} was expected")
        self._sequence += 1

    async def _acknowledge(self, event: str, sequence: int) -> None:
        await self._send("input_text.ack", event=event, sequence=sequence, request_id=self._id)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send({"type": kind, **fields})

    async def _refuse(self, refusal: Refusal) -> None:
        fault = {"type": refusal.type, "code": refusal.code, "message": refusal.message}
        await self._send("error", request_id=self._id, error=fault)


def _audio(sample_rate_hz: int) -> dict[str, object]:
    return {"encoding": "pcm_s16le", "sample_rate": sample_rate_hz, "channels": 1}
