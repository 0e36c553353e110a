"""ElevenLabs' WebSocket stream-input: text in as it is written, audio out.

    client                                             server
    {text: " ", voice_settings?, generation_config?}
    {text: "Hel"}, {text: "lo. "} ...                  {audio: base64, isFinal: null, alignment: null, ...} ...
    {text: "", or more, flush: true}                   (the rest of that text; the next text is another utterance)
    {text: ""}                                         (the rest of all text), {isFinal: true}, close 1000

Speech begins with the first word, whatever `chunk_length_schedule` and `try_trigger_generation` say. Nothing here
aligns characters with audio: `alignment` and `normalizedAlignment` are null. Errors are {message, error, code}, `code`
being that of the close: 1008 for the client's, 1011 for the server's.
"""

import asyncio
import base64
from contextlib import aclosing
from typing import Literal

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from deployments.errors import HttpError
from deployments.protocols.elevenlabs.fields import (
    DEFAULT_OUTPUT_FORMAT,
    Declined,
    DeclinedFlag,
    ElevenLabsError,
    SpokenFields,
    elevenlabs_errors,
    parse_spoken,
    status_of,
    utterance_fields,
)
from deployments.protocols.sockets import EventSocket, until_one_ends, violation
from deployments.settings import IngressArgs
from deployments.speech.live_speech import STAND_IN
from deployments.speech.order import Order, PendingText, Speaker, spoken_live
from deployments.speech.utterance import Name, Utterance, parse_fields

_LONGEST_MESSAGE_BYTES = 128 * 1024
_MOST_UTTERANCES = 8  # that wait
# API keys in a message: they count in the header.
_CREDENTIALS = ("xi_api_key", "xi-api-key", "authorization")


class _Options(BaseModel):
    """The query of the URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: Name | None = None
    language_code: Name | None = None
    output_format: str = DEFAULT_OUTPUT_FORMAT
    inactivity_timeout: int = Field(20, ge=1, le=180)
    seed: int | None = None
    enable_ssml_parsing: DeclinedFlag = False
    apply_text_normalization: Literal["auto", "off"] = "auto"
    # Without effect here: nothing is logged, delayed or aligned.
    enable_logging: bool = True
    optimize_streaming_latency: int = 0
    auto_mode: bool = False
    sync_alignment: bool = False


class _Message(SpokenFields):
    text: StrictStr
    flush: StrictBool | None = None
    # Without effect here: text is spoken as it comes.
    try_trigger_generation: StrictBool | None = None
    generation_config: dict[str, object] | None = None
    generator_config: Declined = None


class ElevenLabsSocket:
    """One connection: utterances, one after the other."""

    def __init__(self, socket: WebSocket, voice_id: str, speaker: Speaker, args: IngressArgs) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._query = dict(socket.query_params)
        self._voice_id = voice_id
        self._speaker = speaker
        self._args = args
        self._texts: asyncio.Queue[PendingText | None] = asyncio.Queue()
        self._ahead = 0  # of what was put there and is not spoken yet
        self._growing: PendingText | None = None  # which is being written

    async def run(self) -> None:
        await self._socket.accept()
        try:
            with elevenlabs_errors():
                await self._talk()
        except ElevenLabsError as error:
            await self._refuse(error)

    async def _talk(self) -> None:
        try:
            options = parse_fields(_Options, self._query)
            first = await self._receive(options)
            order = await self._speaker.order(self._utterance(options, first))
            await until_one_ends(self._read(options, first), self._speak(order))
            await self._socket.send({"isFinal": True})
            await self._socket.close(1000)
        except WebSocketDisconnect:
            pass

    def _utterance(self, options: _Options, first: _Message) -> Utterance:
        """What all texts of the connection have in common."""
        fields = utterance_fields(
            first,
            text=STAND_IN,
            voice_id=self._voice_id,
            model_id=options.model_id,
            language_code=options.language_code,
            output_format=options.output_format,
        )
        if fields["response_format"] == "wav":
            message = "output_format: a stream of utterances is no WAV file; take pcm"
            raise HttpError(400, message, param="output_format", code="invalid_output_format")
        if fields["seed"] is None:
            fields["seed"] = options.seed
        return parse_fields(Utterance, fields)

    async def _read(self, options: _Options, first: _Message) -> None:
        """Take the client's messages until the connection ends."""
        message, closing = first, False
        while True:
            if closing:
                violation('text after the end, which {"text": ""} is')
            closing = not message.text
            self._take(message)
            if closing:
                self._put(None)
            message = await self._receive(options)
            if message.voice_settings not in (None, first.voice_settings):
                violation("voice_settings are those of the first message; open another connection for others")

    def _take(self, message: _Message) -> None:
        if self._growing is None and message.text.strip():
            self._growing = PendingText()
            self._put(self._growing)
        if self._growing is None:
            return
        self._growing.append(message.text)
        if self._growing.characters > self._args.max_input_characters:
            text = f"text has more than {self._args.max_input_characters} characters between two flushes"
            raise HttpError(400, text, param="text", code="input_too_long")
        if message.flush or not message.text:
            self._growing.end()
            self._growing = None

    def _put(self, text: PendingText | None) -> None:
        self._ahead += 1
        if self._ahead > _MOST_UTTERANCES + 1:
            raise HttpError(429, f"more than {_MOST_UTTERANCES} utterances are waiting", code="too_many_utterances")
        self._texts.put_nowait(text)

    async def _speak(self, order: Order) -> None:
        """Speak one text after the other, to the end."""
        while (text := await self._texts.get()) is not None:
            async with aclosing(spoken_live(self._speaker, order, text)) as pieces:
                async for piece, _ in pieces:
                    if piece:
                        await self._send_audio(piece)
            self._ahead -= 1

    async def _send_audio(self, piece: bytes) -> None:
        audio = base64.b64encode(piece).decode()
        await self._socket.send({"audio": audio, "isFinal": None, "alignment": None, "normalizedAlignment": None})

    async def _receive(self, options: _Options) -> _Message:
        event = await self._socket.receive_object(options.inactivity_timeout, self._speaking)
        return parse_spoken(_Message, {name: value for name, value in event.items() if name not in _CREDENTIALS})

    def _speaking(self) -> bool:
        """Whether the client waits for us, not we for it."""
        return self._growing is None and self._ahead > 0

    async def _refuse(self, error: ElevenLabsError) -> None:
        if self._socket.connected:
            code = 1011 if error.status >= 500 else 1008
            await self._socket.send({"message": error.message, "error": status_of(error), "code": code})
            await self._socket.close(code)
