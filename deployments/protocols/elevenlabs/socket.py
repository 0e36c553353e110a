"""ElevenLabs' WebSocket stream-input: text in as it is written, audio out.

    client                                             server
    {text: " ", voice_settings?, generation_config?}
    {text: "Hel"}, {text: "lo. "} ...                  {audio: base64, isFinal: null, alignment: null, ...} ...
    {text: "more", flush: true}                        (the rest of that text; the next text is another utterance)
    {text: ""}                                         (the rest of all text), {isFinal: true}, close 1000

Speech begins with the first word. `chunk_length_schedule` and `try_trigger_generation` have no effect. This service
does not align characters with audio: `alignment` and `normalizedAlignment` are null. Errors are {message, error, code}.
`code` is that of the close: 1008 for an error of the client, 1011 for an error of the server.
"""

import base64
from typing import Literal

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from deployments.errors import Refusal, refusal_of, renamed_fields
from deployments.http.bodies import parse_fields
from deployments.protocols.elevenlabs.fields import (
    DEFAULT_OUTPUT_FORMAT,
    SENT_AS,
    Declined,
    DeclinedFlag,
    SpokenFields,
    speech_fields,
    status_of,
)
from deployments.protocols.sockets import EventSocket, Turns, until_one_ends, violation
from deployments.protocols.speaker import Speaker
from deployments.speech.fields import Name, SpeechFields
from deployments.speech.live_speech import LiveText
from deployments.speech.service import ResolvedSpeech
from qwen_tts.errors import InvalidRequest

_LONGEST_MESSAGE_BYTES = 256 * 1024
_MOST_UTTERANCES = 9  # one that is spoken, the others wait
# API keys in a message have no effect: the gate has checked the header.
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

    def __init__(self, socket: WebSocket, voice_id: str, speaker: Speaker) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._query = dict(socket.query_params)
        self._voice_id = voice_id
        self._speaker = speaker
        self._turns = Turns[LiveText](_MOST_UTTERANCES, "utterances")
        self._growing: LiveText | None = None  # the text that is being written

    async def run(self) -> None:
        await self._socket.accept()
        try:
            options = parse_fields(_Options, self._query)
            first = await self._receive(options)
            speech = await self._speaker.resolve(self._fields(options, first), SENT_AS)
            await until_one_ends(self._read(options, first), self._speak(speech))
            await self._socket.send({"isFinal": True})
            await self._socket.close(1000)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await self._refuse(refusal_of(error))

    def _fields(self, options: _Options, first: _Message) -> SpeechFields:
        """Return how all texts of the connection are spoken."""
        fields = speech_fields(
            first,
            voice_id=self._voice_id,
            model_id=options.model_id,
            language_code=options.language_code,
            output_format=options.output_format,
        )
        if fields.response_format == "wav":
            message = "output_format wav is not supported for a stream of several utterances; choose pcm"
            raise InvalidRequest(message, "output_format", "invalid_output_format")
        return fields if fields.seed is not None else fields.model_copy(update={"seed": options.seed})

    async def _read(self, options: _Options, first: _Message) -> None:
        """Accept the client's messages until the connection ends."""
        message, closing = first, False
        while True:
            if closing:
                violation('text after {"text": ""}, which ended the text; open another connection')
            closing = not message.text
            self._add(message)
            if closing:
                self._turns.end()
            message = await self._receive(options)
            if message.voice_settings not in (None, first.voice_settings):
                violation("voice_settings may not change after the first message; open another connection")

    def _add(self, message: _Message) -> None:
        """Add the text of a message to the utterance that is being written, or begin one."""
        if self._growing is None and message.text.strip():
            self._growing = self._speaker.live_text()
            self._turns.put(self._growing)
        if self._growing is None:
            return
        with renamed_fields(SENT_AS):
            self._growing.append(message.text)
        if message.flush or not message.text:
            self._growing.end()
            self._growing = None

    async def _speak(self, speech: ResolvedSpeech) -> None:
        """Speak one text after the other until the client has ended the text."""
        async for text in self._turns:
            async with self._speaker.speak_live(speech, text) as pieces:
                async for piece in pieces:
                    if piece:
                        await self._send_audio(piece)

    async def _send_audio(self, piece: bytes) -> None:
        audio = base64.b64encode(piece).decode()
        await self._socket.send({"audio": audio, "isFinal": None, "alignment": None, "normalizedAlignment": None})

    async def _receive(self, options: _Options) -> _Message:
        event = await self._socket.receive_object(options.inactivity_timeout, self._speaking)
        return parse_fields(_Message, {name: value for name, value in event.items() if name not in _CREDENTIALS})

    def _speaking(self) -> bool:
        """Return whether speech is due and no text is being written. The client may then be silent."""
        return self._growing is None and self._turns.ahead > 0

    async def _refuse(self, refusal: Refusal) -> None:
        if self._socket.connected:
            code = 1011 if refusal.status >= 500 else 1008
            await self._socket.send({"message": refusal.message, "error": status_of(refusal), "code": code})
            await self._socket.close(code)
