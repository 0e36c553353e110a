"""POST /v1/audio/speech."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployments.audio.encoder import MEDIA_TYPES
from deployments.http.bodies import JSON, BodyReader, parse_body
from deployments.http.gate import caller_of
from deployments.http.max_wait import max_wait_of
from deployments.http.openapi import BODY_ERRORS, errors, files, json_body
from deployments.http.responses import audio_file, file_response, stream_response
from deployments.protocols.openai.bodies import SpeechBody
from deployments.protocols.openai.events import MEDIA_TYPE as EVENTS
from deployments.protocols.openai.events import speech_events
from deployments.speech.service import SpeechService
from qwen_tts.errors import InvalidRequest

_SPOKEN = {"input": "One two three.", "voice": "ryan", "language": "english"}


def routes(service: SpeechService, bodies: BodyReader) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/audio/speech",
        response_class=Response,
        responses=files("The audio, or events of it", *MEDIA_TYPES.values(), EVENTS) | errors(*BODY_ERRORS, 404),
        openapi_extra=json_body(
            SpeechBody,
            built_in_voice=_SPOKEN,
            openai=_SPOKEN | {"model": "gpt-4o-mini-tts", "response_format": "pcm", "stream_format": "sse"},
            described_voice={"input": "One two three.", "instructions": "A warm, low voice."},
            cloned_voice={"input": "One two three.", "ref_audio": "https://host/a.wav", "ref_text": "Words in it."},
        ),
    )
    async def speech(request: Request) -> Response:
        """Speak a text. The audio is sent while it is being made, unless `stream` is false."""
        async with bodies.read(request, JSON) as content:
            body = parse_body(SpeechBody, content)
            events = body.stream_format == "sse"
            if events and not body.stream:
                message = "stream_format sse is a stream; omit stream or set it to true"
                raise InvalidRequest(message, "stream", "conflicting_fields")
            resolved, spoken = await service.prepare(
                caller_of(request), body.resolved(), body.input, body.sent_as, max_wait_of(request)
            )
            body.check_task(resolved.card)
        headers = {"X-Model": resolved.card.name, "X-Seed": str(spoken.seed)}
        opening = service.speak(resolved, spoken, whole=not body.stream)
        if not body.stream:
            return file_response(await audio_file(opening), headers)
        return await stream_response(opening, headers, speech_events(spoken.text) if events else None)

    return router
