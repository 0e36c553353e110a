"""vLLM-Omni's WebSocket: text in, audio out, one utterance after the other.

    client                                        server
    session.config {voice, ..., stream_audio, split_granularity, word_timestamps}
    input.text {text} ...
                                                  audio.start {utterance_index, sentence_index, sentence_text, format}
                                                  binary messages: the file, or PCM as it is made (stream_audio)
                                                  audio.done {utterance_index, sentence_index, total_bytes, error}
    input.done                                    session.done {utterance_index, total_sentences}
    session.close                                 (what was asked for until then), close 1000

`split_granularity` sentence (the default) and clause: each is spoken as soon as the next one has begun, and the rest at
input.done. none: all of it at input.done; but with stream_audio, while it is being written, word by word. An utterance
waits for the one before it. Nothing here aligns words with audio: with word_timestamps the audio comes in audio.chunk
events, whose `timestamps` are null. A fault of the client is an `error` and ends the connection; speech that fails is
an `error` and audio.done with `error` true, and the next utterance may come.
"""

import asyncio
import base64
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, StrictBool, StrictStr

from deployments.audio.encoder import AudioFormat
from deployments.errors import HttpError, to_http_error
from deployments.protocols.sockets import EventSocket, until_one_ends, violation
from deployments.settings import IngressArgs
from deployments.speech.live_speech import STAND_IN
from deployments.speech.order import EncodedStream, Order, PendingText, Speaker, spoken, spoken_live
from deployments.speech.utterance import Utterance, UtteranceFields, parse_fields
from deployments.text.sentences import complete_parts

_LONGEST_MESSAGE_BYTES = 4 * 1024 * 1024
_LONGEST_TEXT_BYTES = 128 * 1024  # of an utterance
_MOST_UTTERANCES = 8  # that wait


class _Config(UtteranceFields):
    response_format: AudioFormat = "wav"  # vLLM-Omni's
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
    order: Order

    @property
    def live(self) -> bool:
        return self.config.stream_audio and self.config.split_granularity == "none"


@dataclass(frozen=True)
class _Sentence:
    session: _Session
    utterance: int
    index: int
    text: str | PendingText


@dataclass(frozen=True)
class _End:
    """Of an utterance."""

    utterance: int
    sentences: int


class OmniSocket:
    """One connection."""

    def __init__(self, socket: WebSocket, speaker: Speaker, args: IngressArgs) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._speaker = speaker
        self._args = args
        self._work: asyncio.Queue[_Sentence | _End | None] = asyncio.Queue()
        self._ahead = 0  # of what was put there and is not done yet
        self._utterances_ahead = 0
        # Of the utterance that is being written:
        self._utterance = 0
        self._sentences = 0
        self._text_bytes = 0
        self._rest = ""  # not cut into sentences yet
        self._growing: PendingText | None = None

    async def run(self) -> None:
        async with self._socket.conversation(self._refuse):
            kind, fields = await self._socket.receive(self._args.body_pause_s)
            if kind != "session.config":
                violation(f"{kind} before session.config")
            session = await self._configure(fields)
            await until_one_ends(self._read(session), self._speak())

    async def _refuse(self, error: HttpError) -> None:
        await self._send("error", **_fault(error))

    async def _configure(self, fields: dict[str, object]) -> _Session:
        config = parse_fields(_Config, fields)
        if config.response_format != "pcm" and (config.stream_audio or config.word_timestamps):
            name = "stream_audio" if config.stream_audio else "word_timestamps"
            message = f"{name} needs response_format pcm, not {config.response_format}"
            raise HttpError(400, message, param="response_format", code="conflicting_fields")
        own = {"stream_audio", "split_granularity", "word_timestamps"}
        given = {name: value for name, value in fields.items() if name not in own}
        body = parse_fields(
            Utterance, {**given, "response_format": config.response_format, "input": STAND_IN}
        ).resolved()
        return _Session(config, await self._speaker.order(body))

    async def _read(self, session: _Session) -> None:
        """Take the client's events until the connection ends."""
        closing = False
        while True:
            kind, fields = await self._socket.receive(self._args.live_text_timeout_s, lambda: self._ahead > 0)
            match kind:
                case _ if closing:
                    violation(f"{kind} after session.close")
                case "session.config":
                    if self._text_bytes:
                        violation("session.config inside an utterance; send input.done before")
                    session = await self._configure(fields)
                case "input.text":
                    await self._append(session, parse_fields(_Text, fields).text)
                case "input.done":
                    parse_fields(_Nothing, fields)
                    self._finish(session)
                case "session.close":
                    closing = True
                    self._put(None)
                case _:
                    violation(f"{kind} is not known here")

    async def _append(self, session: _Session, text: str) -> None:
        self._text_bytes += len(text.encode())
        self._rest += text
        if session.live:
            if self._growing is None and self._rest.strip():
                self._growing = PendingText()
                self._say(session, self._growing)
            if self._growing is not None:
                self._growing.append(self._rest)
                self._rest = ""
        elif session.config.split_granularity != "none":
            clauses = session.config.split_granularity == "clause"
            cut = asyncio.to_thread(complete_parts, self._rest, session.config.language, clauses=clauses)
            parts, self._rest = await cut
            for part in parts:
                self._say(session, part)
        at_once = len(self._rest) if self._growing is None else self._growing.characters
        if self._text_bytes > _LONGEST_TEXT_BYTES or at_once > self._args.max_input_characters:
            message = f"an utterance has at most {_LONGEST_TEXT_BYTES} bytes of text, and what is spoken at once"
            message += f" {self._args.max_input_characters} characters; see split_granularity"
            raise HttpError(413, message, param="text", code="input_too_long")

    def _finish(self, session: _Session) -> None:
        if self._growing is not None:
            self._growing.end()
        elif self._rest.strip():
            self._say(session, self._rest.strip())
        self._utterances_ahead += 1
        if self._utterances_ahead > _MOST_UTTERANCES:
            raise HttpError(429, f"more than {_MOST_UTTERANCES} utterances are waiting", code="too_many_utterances")
        self._put(_End(self._utterance, self._sentences))
        self._utterance += 1
        self._sentences = self._text_bytes = 0
        self._rest, self._growing = "", None

    def _say(self, session: _Session, text: str | PendingText) -> None:
        self._put(_Sentence(session, self._utterance, self._sentences, text))
        self._sentences += 1

    def _put(self, work: _Sentence | _End | None) -> None:
        self._ahead += 1
        self._work.put_nowait(work)

    async def _speak(self) -> None:
        """Do the work in its order, until session.close."""
        while (work := await self._work.get()) is not None:
            match work:
                case _Sentence():
                    await self._say_sentence(work)
                case _End(utterance, sentences):
                    self._utterances_ahead -= 1
                    await self._send("session.done", utterance_index=utterance, total_sentences=sentences)
            self._ahead -= 1

    async def _say_sentence(self, sentence: _Sentence) -> None:
        order = sentence.session.order
        which = {"utterance_index": sentence.utterance, "sentence_index": sentence.index}
        text = sentence.text if isinstance(sentence.text, str) else ""  # it is not written yet
        shape = {"sample_rate": order.sample_rate_hz, "channels": 1}
        await self._send("audio.start", **which, sentence_text=text, format=order.audio_format, **shape)
        sent = chunks = 0
        failed = False
        try:
            async with aclosing(self._pieces(sentence)) as pieces:
                async for piece, _ in pieces:
                    if not piece:
                        continue
                    if sentence.session.config.word_timestamps:
                        await self._send("audio.chunk", **which, chunk_id=chunks, **shape, **_chunk(order, sent, piece))
                    else:
                        await self._socket.send_bytes(piece)
                    sent, chunks = sent + len(piece), chunks + 1
        except Exception as error:  # this sentence's; when the client has left, the next message says so
            failed = True
            discard = {"partial_audio": True, "action": "discard"} if sent else {}
            await self._send("error", **_fault(to_http_error(error)), **discard)
        await self._send("audio.done", **which, total_bytes=sent, error=failed)

    def _pieces(self, sentence: _Sentence) -> EncodedStream:
        order = sentence.session.order
        match sentence.text:
            case PendingText() as growing:
                return spoken_live(self._speaker, order, growing)
            case text:
                return spoken(self._speaker, order, text, whole=not sentence.session.config.stream_audio)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send({"type": kind, **fields})


def _chunk(order: Order, sent: int, pcm: bytes) -> dict[str, object]:
    """Where 16-bit PCM is heard after what was `sent`."""
    bytes_per_ms = 2 * order.sample_rate_hz / 1000
    return {
        "chunk_start_ms": round(sent / bytes_per_ms),
        "chunk_end_ms": round((sent + len(pcm)) / bytes_per_ms),
        "audio_b64": base64.b64encode(pcm).decode(),
        "timestamps": None,
    }


def _fault(error: HttpError) -> dict[str, object]:
    return {"message": error.message, "code": error.code, "param": error.param}
