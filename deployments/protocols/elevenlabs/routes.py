"""ElevenLabs' routes of text to speech: its client works with its base URL set to this service."""

from typing import Annotated

from fastapi import Query, Request, WebSocket
from fastapi.responses import Response

from deployments.access.caller import caller_of
from deployments.audio.encoder import MEDIA_TYPES
from deployments.edge import app
from deployments.http.bodies import JSON
from deployments.http.openapi import BODY_ERRORS, errors, files, json_body
from deployments.protocols.elevenlabs.fields import (
    DEFAULT_OUTPUT_FORMAT,
    OUTPUT_FORMATS,
    ConvertBody,
    ElevenLabsErrorAnswer,
    ElevenLabsVoice,
    ElevenLabsVoices,
    elevenlabs_errors,
    parse_spoken,
    utterance_fields,
)
from deployments.protocols.elevenlabs.socket import ElevenLabsSocket
from deployments.protocols.speaker import SocketRoutes
from deployments.speech.utterance import SpeechBody, parse_fields, parse_object

_MEDIA_TYPES = {MEDIA_TYPES[audio_format] for audio_format, _ in OUTPUT_FORMATS.values()}
_ANSWERS = files("The audio", *sorted(_MEDIA_TYPES)) | errors(*BODY_ERRORS, 404, shape=ElevenLabsErrorAnswer)
_BODY = json_body(ConvertBody, english={"text": "One two three.", "model_id": "eleven_v3", "language_code": "en"})
_OutputFormat = Annotated[str, Query(description=f"one of {', '.join(OUTPUT_FORMATS)}")]


class ElevenLabsRoutes(SocketRoutes):
    @app.post("/v1/text-to-speech/{voice_id}", response_class=Response, responses=_ANSWERS, openapi_extra=_BODY)
    async def convert(
        self, voice_id: str, request: Request, output_format: _OutputFormat = DEFAULT_OUTPUT_FORMAT
    ) -> Response:
        """ElevenLabs': speak a text, sent when it is complete."""
        return await self._convert(voice_id, request, output_format, stream=False)

    @app.post("/v1/text-to-speech/{voice_id}/stream", response_class=Response, responses=_ANSWERS, openapi_extra=_BODY)
    async def convert_as_stream(
        self, voice_id: str, request: Request, output_format: _OutputFormat = DEFAULT_OUTPUT_FORMAT
    ) -> Response:
        """ElevenLabs': speak a text, sent while it is being made."""
        return await self._convert(voice_id, request, output_format, stream=True)

    @app.websocket("/v1/text-to-speech/{voice_id}/stream-input")
    async def stream_input(self, voice_id: str, socket: WebSocket) -> None:
        """ElevenLabs': text in while it is being written, audio out."""
        await ElevenLabsSocket(socket, voice_id, self._speaker(socket), self._args).run()

    @app.get("/v1/voices", responses=errors(500, 503, shape=ElevenLabsErrorAnswer))
    async def elevenlabs_voices(self, request: Request) -> ElevenLabsVoices:
        """ElevenLabs': built-in voices, aliases, and the stored voices."""
        with elevenlabs_errors():
            cards, stored = await self._loaded(), await self._library.list(caller_of(request))
        built_in = {speaker for card in cards.values() for speaker in card.speakers} | set(self._library.aliases)
        premade = [ElevenLabsVoice(voice_id=name, name=name, category="premade") for name in sorted(built_in)]
        own = [
            ElevenLabsVoice(
                voice_id=voice.name,
                name=voice.name,
                category="cloned" if voice.source == "upload" else "generated",
                description=voice.description,
            )
            for voice in stored
        ]
        return ElevenLabsVoices(voices=premade + own)

    async def _convert(self, voice_id: str, request: Request, output_format: str, *, stream: bool) -> Response:
        with elevenlabs_errors():
            async with self._bodies.read(request, JSON) as content:
                body = parse_spoken(ConvertBody, parse_object(content))
                fields = utterance_fields(
                    body,
                    text=body.text,
                    voice_id=voice_id,
                    model_id=body.model_id,
                    language_code=body.language_code,
                    output_format=output_format,
                )
                speech = parse_fields(SpeechBody, fields | {"stream": stream})
                card, order = await self._order(caller_of(request), speech)
            return await self._answer(speech, card, order)
