"""ElevenLabs' routes of text to speech: its client works with its base URL set to this service."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from deployments.access.limits import CallerLimits
from deployments.audio.encoder import MEDIA_TYPES
from deployments.errors import refusal_of
from deployments.http.bodies import JSON, BodyReader, parse_body
from deployments.http.errors import error_response
from deployments.http.gate import caller_of
from deployments.http.max_wait import max_wait_of
from deployments.http.openapi import BODY_ERRORS, errors, files, json_body
from deployments.http.responses import audio_file, file_response, stream_response
from deployments.protocols.elevenlabs.fields import (
    DEFAULT_OUTPUT_FORMAT,
    OUTPUT_FORMATS,
    SENT_AS,
    ConvertBody,
    ElevenLabsErrorAnswer,
    ElevenLabsVoice,
    ElevenLabsVoices,
    error_body,
    speech_fields,
)
from deployments.protocols.elevenlabs.socket import ElevenLabsSocket
from deployments.protocols.speaker import Speaker
from deployments.speech.service import SpeechService
from deployments.voices.record import VoiceRecord

_MEDIA_TYPES = {MEDIA_TYPES[audio_format] for audio_format, _ in OUTPUT_FORMATS.values()}
_ANSWERS = files("The audio", *sorted(_MEDIA_TYPES)) | errors(*BODY_ERRORS, 404, shape=ElevenLabsErrorAnswer)
_BODY = json_body(ConvertBody, english={"text": "One two three.", "model_id": "eleven_v3", "language_code": "en"})
_OutputFormat = Annotated[str, Query(description=f"one of {', '.join(OUTPUT_FORMATS)}")]


class _ElevenLabsRoute(APIRoute):
    """Answers errors in ElevenLabs' shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                raise  # an error in the URL's parameters, which FastAPI parses
            except Exception as error:
                refusal = refusal_of(error)
                return error_response(refusal, error_body(refusal))

        return answer


def routes(service: SpeechService, bodies: BodyReader, limits: CallerLimits) -> APIRouter:
    router = APIRouter(route_class=_ElevenLabsRoute)

    @router.post("/v1/text-to-speech/{voice_id}", response_class=Response, responses=_ANSWERS, openapi_extra=_BODY)
    async def convert(
        voice_id: str, request: Request, output_format: _OutputFormat = DEFAULT_OUTPUT_FORMAT
    ) -> Response:
        """Speak a text (ElevenLabs). The audio is sent when it is complete."""
        return await _convert(service, bodies, voice_id, request, output_format, stream=False)

    @router.post(
        "/v1/text-to-speech/{voice_id}/stream", response_class=Response, responses=_ANSWERS, openapi_extra=_BODY
    )
    async def convert_as_stream(
        voice_id: str, request: Request, output_format: _OutputFormat = DEFAULT_OUTPUT_FORMAT
    ) -> Response:
        """Speak a text (ElevenLabs). The audio is sent while it is being made."""
        return await _convert(service, bodies, voice_id, request, output_format, stream=True)

    @router.websocket("/v1/text-to-speech/{voice_id}/stream-input")
    async def stream_input(voice_id: str, socket: WebSocket) -> None:
        await ElevenLabsSocket(socket, voice_id, Speaker(service, limits, caller_of(socket))).run()

    @router.get("/v1/voices", responses=errors(500, 503, shape=ElevenLabsErrorAnswer))
    async def elevenlabs_voices(request: Request) -> ElevenLabsVoices:
        """List the built-in voices, the aliases and the caller's stored voices (ElevenLabs)."""
        await service.models.load()
        return _voices(service, await service.library.list(caller_of(request)))

    return router


def _voices(service: SpeechService, stored: Sequence[VoiceRecord]) -> ElevenLabsVoices:
    built_in = {speaker for card in service.models for speaker in card.speakers} | set(service.library.aliases)
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


async def _convert(
    service: SpeechService, bodies: BodyReader, voice_id: str, request: Request, output_format: str, *, stream: bool
) -> Response:
    async with bodies.read(request, JSON) as content:
        body = parse_body(ConvertBody, content)
        fields = speech_fields(
            body,
            voice_id=voice_id,
            model_id=body.model_id,
            language_code=body.language_code,
            output_format=output_format,
        )
        resolved, spoken = await service.prepare(caller_of(request), fields, body.text, SENT_AS, max_wait_of(request))
    headers = {"X-Model": resolved.card.name, "X-Seed": str(spoken.seed)}
    opening = service.speak(resolved, spoken, whole=not stream)
    if not stream:
        return file_response(await audio_file(opening), headers)
    return await stream_response(opening, headers)
