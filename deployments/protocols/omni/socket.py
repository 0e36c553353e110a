"""vLLM-Omni's WebSocket: text in, audio out, one utterance after the other.

    client                                        server
    session.config {voice, ..., stream_audio, split_granularity, word_timestamps}
    input.text {text} ...
                                                  audio.start {utterance_index, sentence_index, sentence_text, format}
                                                  binary messages: the file, or PCM as it is made (stream_audio)
                                                  audio.done {utterance_index, sentence_index, total_bytes, error}
    input.done                                    session.done {utterance_index, total_sentences}
    session.close                                 (the speech of all text until then), close 1000

With `split_granularity` sentence (the default) or clause, each part is spoken once the next part has begun, and the
last part at input.done. With none, the whole text is spoken at input.done; with none and stream_audio, it is spoken
word by word while it is written. An utterance waits for the one before it. This service does not align words with
audio: with word_timestamps the audio is sent in audio.chunk events, whose `timestamps` are null. A mistake of the
client is answered with `error` and ends the connection. Speech that fails is answered with `error` and with audio.done,
whose `error` is true. The client may then send the next utterance.
"""

import asyncio
import base64
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, StrictBool, StrictStr

from deployments.access.limits import CallerLimits
from deployments.audio.encoder import AudioFormat
from deployments.errors import Refusal, refusal_of, renamed_fields
from deployments.http.bodies import parse_fields
from deployments.http.gate import caller_of
from deployments.protocols.fields import UtteranceFields
from deployments.protocols.sockets import EventSocket, Turns, until_one_ends, violation
from deployments.protocols.speaker import Speaker
from deployments.speech.encoding import AudioOutput, EncodedSpeech
from deployments.speech.live_speech import LiveText
from deployments.speech.service import ResolvedSpeech, SpeechService
from deployments.text.sentences import complete_parts
from qwen_tts.errors import InvalidRequest

_LONGEST_MESSAGE_BYTES = 4 * 1024 * 1024
_LONGEST_TEXT_BYTES = 128 * 1024  # of an utterance
_MOST_UTTERANCES = 8  # that wait, each with all its sentences


def routes(service: SpeechService, limits: CallerLimits) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/audio/speech/stream")
    async def omni(socket: WebSocket) -> None:
        await OmniSocket(socket, Speaker(service, limits, caller_of(socket))).run()

    return router


class _Config(UtteranceFields):
    response_format: AudioFormat = "wav"  # vLLM-Omni's default
    stream_audio: StrictBool = False
    split_granularity: Literal["none", "sentence", "clause"] = "sentence"
    word_timestamps: StrictBool = False


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    text: StrictStr


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class _Session:
    config: _Config
    speech: ResolvedSpeech

    @property
    def live(self) -> bool:
        return self.config.stream_audio and self.config.split_granularity == "none"


@dataclass(frozen=True)
class _Sentence:
    session: _Session
    utterance: int
    index: int
    text: str | LiveText


@dataclass(frozen=True)
class _End:
    """The end of an utterance."""

    utterance: int
    sentences: int


class OmniSocket:
    """One connection."""

    def __init__(self, socket: WebSocket, speaker: Speaker) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._speaker = speaker
        self._turns = Turns[_Sentence | _End](_MOST_UTTERANCES, "utterances")
        # The utterance that is being written:
        self._utterance = 0
        self._sentences = 0
        self._text_bytes = 0
        self._rest = ""  # not cut into sentences yet
        self._growing: LiveText | None = None

    async def run(self) -> None:
        async with self._socket.conversation(self._refuse):
            kind, fields = await self._socket.receive(self._speaker.args.body_pause_s)
            if kind != "session.config":
                violation(f"{kind} before session.config")
            session = await self._configure(fields)
            await until_one_ends(self._read(session), self._speak())

    async def _refuse(self, refusal: Refusal) -> None:
        await self._send("error", **_fault(refusal))

    async def _configure(self, fields: dict[str, object]) -> _Session:
        config = parse_fields(_Config, fields)
        if config.response_format != "pcm" and (config.stream_audio or config.word_timestamps):
            name = "stream_audio" if config.stream_audio else "word_timestamps"
            message = f"{name} needs response_format pcm, not {config.response_format}"
            raise InvalidRequest(message, "response_format", "conflicting_fields")
        speech = await self._speaker.resolve(config.resolved(), config.sent_as)
        config.check_task(speech.card)
        return _Session(config, speech)

    async def _read(self, session: _Session) -> None:
        """Accept the client's events until the connection ends."""
        closing = False
        while True:
            timeout_s = self._speaker.args.live_text_timeout_s
            kind, fields = await self._socket.receive(timeout_s, lambda: self._turns.ahead > 0)
            match kind:
                case _ if closing:
                    violation(f"{kind} after session.close")
                case "session.config":
                    if self._text_bytes:
                        violation("session.config inside an utterance; send input.done first")
                    session = await self._configure(fields)
                case "input.text":
                    await self._append(session, parse_fields(_Text, fields).text)
                case "input.done":
                    parse_fields(_Nothing, fields)
                    self._finish(session)
                case "session.close":
                    closing = True
                    self._turns.end()
                case _:
                    violation(f"{kind} is not a known event")

    async def _append(self, session: _Session, text: str) -> None:
        self._text_bytes += len(text.encode())
        if self._text_bytes > _LONGEST_TEXT_BYTES:
            message = f"an utterance may have at most {_LONGEST_TEXT_BYTES} bytes of text; send input.done earlier"
            raise InvalidRequest(message, "text", "input_too_long")
        self._rest += text
        with renamed_fields({"input": "text"}):
            if session.live:
                self._append_live(session)
            elif session.config.split_granularity != "none":
                clauses = session.config.split_granularity == "clause"
                cut = asyncio.to_thread(complete_parts, self._rest, session.config.language, clauses=clauses)
                parts, self._rest = await cut
                for part in parts:
                    self._say(session, part)
            self._speaker.check_whole(self._rest)

    def _append_live(self, session: _Session) -> None:
        if self._growing is None and self._rest.strip():
            self._growing = self._speaker.live_text()
            self._say(session, self._growing)
        if self._growing is not None:
            self._growing.append(self._rest)
            self._rest = ""

    def _finish(self, session: _Session) -> None:
        if self._growing is not None:
            self._growing.end()
        elif self._rest.strip():
            self._say(session, self._rest.strip())
        self._turns.put(_End(self._utterance, self._sentences))
        self._utterance += 1
        self._sentences = self._text_bytes = 0
        self._rest, self._growing = "", None

    def _say(self, session: _Session, text: str | LiveText) -> None:
        self._turns.put(_Sentence(session, self._utterance, self._sentences, text), counted=False)
        self._sentences += 1

    async def _speak(self) -> None:
        """Process the queued work in order, until session.close."""
        async for work in self._turns:
            match work:
                case _Sentence():
                    await self._say_sentence(work)
                case _End(utterance, sentences):
                    await self._send("session.done", utterance_index=utterance, total_sentences=sentences)

    async def _say_sentence(self, sentence: _Sentence) -> None:
        output = sentence.session.speech.output
        which = {"utterance_index": sentence.utterance, "sentence_index": sentence.index}
        text = sentence.text if isinstance(sentence.text, str) else ""  # a live text is not known yet
        shape = {"sample_rate": output.rate_hz, "channels": 1}
        await self._send("audio.start", **which, sentence_text=text, format=output.audio_format, **shape)
        sent = chunks = 0
        failed = False
        try:
            async with self._speech(sentence) as pieces:
                async for piece in pieces:
                    if not piece:
                        continue
                    if sentence.session.config.word_timestamps:
                        chunk = _chunk(output, sent, piece)
                        await self._send("audio.chunk", **which, chunk_id=chunks, **shape, **chunk)
                    else:
                        await self._socket.send_bytes(piece)
                    sent, chunks = sent + len(piece), chunks + 1
        except Exception as error:  # an error of this sentence; if the client has left, the next message raises
            failed = True
            discard = {"partial_audio": True, "action": "discard"} if sent else {}
            await self._send("error", **_fault(refusal_of(error)), **discard)
        await self._send("audio.done", **which, total_bytes=sent, error=failed)

    def _speech(self, sentence: _Sentence) -> AbstractAsyncContextManager[EncodedSpeech]:
        speech = sentence.session.speech
        match sentence.text:
            case LiveText() as growing:
                return self._speaker.speak_live(speech, growing)
            case text:
                return self._speaker.speak(speech, text, whole=not sentence.session.config.stream_audio)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send({"type": kind, **fields})


def _chunk(output: AudioOutput, sent: int, pcm: bytes) -> dict[str, object]:
    """Return the fields of an audio.chunk of 16-bit PCM that comes after `sent` bytes."""
    bytes_per_ms = 2 * output.rate_hz / 1000
    return {
        "chunk_start_ms": round(sent / bytes_per_ms),
        "chunk_end_ms": round((sent + len(pcm)) / bytes_per_ms),
        "audio_b64": base64.b64encode(pcm).decode(),
        "timestamps": None,
    }


def _fault(refusal: Refusal) -> dict[str, object]:
    return {"message": refusal.message, "code": refusal.code, "param": refusal.param}
