"""The HTTP edge: parse, resolve the model, hand over. No model code.

The first chunk is awaited before the status line is sent, so whatever can be refused is refused with its own status.
After that a failure can only cut the connection.

Serve copies the FastAPI app when `serve.ingress` decorates the class: whatever routes use must be defined above it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.http_errors import HttpError, install_error_handlers, not_loaded, renamed_field
from deployments.messages import ModelCard
from deployments.response_stream import open_stream
from deployments.responses import audio_response
from deployments.schemas import DesignBody, KeepBody, SpeechBody, parse_body
from deployments.settings import IngressArgs, ReferenceAudioArgs, VoiceStoreArgs
from deployments.voice_choice import choose_voice
from deployments.voice_design import VoiceDesigner
from deployments.voice_library import VoiceLibrary
from deployments.voice_record import show_voice
from deployments.voice_upload import parse_upload
from qwen_tts.errors import Overloaded

# How long a question about loading may take before the answer is "not yet".
_DESCRIBE_TIMEOUT_S = 2.0
# Request headers by which a client could ask Serve's proxy to keep working for nobody, or to stop early.
_SERVE_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")

app = FastAPI(title="qwen-tts", docs_url=None, redoc_url=None, openapi_url=None)
install_error_handlers(app)


@serve.ingress(app)
class Ingress:
    """One replica of the edge. It keeps nothing but the cards of the loaded models and what it has read of voices."""

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        encoder: DeploymentHandle[Any] | None,
        args: IngressArgs,
        voices: VoiceStoreArgs,
        reference_audio: ReferenceAudioArgs,
    ) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._args = args
        self._library = VoiceLibrary(encoder, voices, reference_audio)
        self._designer = VoiceDesigner(decoder, self._library, voices)
        self._started = int(time.time())
        self._cards: dict[str, ModelCard] = {}
        self._bytes_under_way = 0  # of bodies that are being read or worked on

    @app.get("/healthz")
    async def healthz(self) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz")
    async def readyz(self) -> JSONResponse:
        """200 once every model has loaded and spoken; asks the replicas each time."""
        cards = await self._describe()
        return JSONResponse({"status": "ready", "models": list(cards)})

    @app.get("/v1/models")
    async def models(self) -> JSONResponse:
        cards = await self._loaded()
        data = [
            {"id": name, "object": "model", "created": self._started, "owned_by": "qwen-tts", "type": card.model_type}
            for name, card in cards.items()
        ]
        return JSONResponse({"object": "list", "data": data})

    @app.get("/v1/audio/voices")
    async def voices(self) -> JSONResponse:
        """Built-in speakers of every model with the languages they speak, and the stored voices."""
        cards = await self._loaded()
        built_in: list[dict[str, object]] = [
            {"id": speaker, "object": "audio.voice", "model": name, "languages": list(card.languages)}
            for name, card in cards.items()
            for speaker in card.speakers
        ]
        stored = [show_voice(record) for record in await self._library.list()]
        names = sorted({str(voice["id"]) for voice in built_in + stored})
        return JSONResponse({"object": "list", "voices": names, "data": built_in + stored, "uploaded_voices": stored})

    @app.post("/v1/audio/voices")
    async def add_voice(self, request: Request) -> JSONResponse:
        async with self._body(request, "multipart/form-data") as body:
            upload = await parse_upload(request.headers.get("content-type", ""), body, self._library.max_audio_bytes)
            self._check_length("ref_text", upload.ref_text or "")
            self._check_length("speaker_description", upload.description or "")
            with renamed_field("ref_audio", "audio_sample"):
                record = await self._library.add(
                    upload.name,
                    upload.audio,
                    await self._loaded(),
                    consent=upload.consent,
                    ref_text=upload.ref_text,
                    description=upload.description,
                    source="upload",
                    overwrite=upload.overwrite,
                )
        return JSONResponse({**show_voice(record), "success": True, "voice": show_voice(record)})

    @app.post("/v1/audio/voices/design")
    async def design_voice(self, request: Request) -> JSONResponse:
        """Previews of a described voice; with a name, the best of them is stored as well."""
        async with self._body(request, "application/json") as content:
            body = parse_body(DesignBody, content)
        self._check_length("input", body.input)
        self._check_length("description", body.description)
        if body.candidates > self._args.max_candidates:
            message = f"candidates is {body.candidates}; at most {self._args.max_candidates} are made"
            raise HttpError(400, message, param="candidates", code="out_of_range")
        cards = await self._loaded()
        if body.name is None:
            previews = await self._designer.preview(body, cards)
            return JSONResponse({"object": "list", "data": previews})
        record, previews = await self._designer.design(body.name, body, cards)
        return JSONResponse({**show_voice(record), "previews": previews})

    @app.post("/v1/audio/voices/design/{preview_id}")
    async def keep_preview(self, preview_id: str, request: Request) -> JSONResponse:
        async with self._body(request, "application/json") as content:
            body = parse_body(KeepBody, content)
        cards = await self._loaded()
        record = await self._designer.keep_preview(preview_id, body.name, cards, overwrite=body.overwrite)
        return JSONResponse(show_voice(record))

    @app.get("/v1/audio/voices/{name}")
    async def voice(self, name: str) -> JSONResponse:
        return JSONResponse(show_voice(await self._library.get(name)))

    @app.get("/v1/audio/voices/{name}/audio")
    async def voice_audio(self, name: str) -> Response:
        """The recording as it was uploaded."""
        record, audio = await self._library.audio(name)
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'attachment; filename="{record.name}"'}
        return Response(audio, media_type=record.mime_type, headers=headers)

    @app.delete("/v1/audio/voices/{name}")
    async def delete_voice(self, name: str) -> JSONResponse:
        await self._library.delete(name)
        return JSONResponse({"id": name, "object": "audio.voice.deleted", "deleted": True, "success": True})

    @app.post("/v1/audio/speech")
    async def speech(self, request: Request) -> Response:
        async with self._body(request, "application/json") as content:
            body = parse_body(SpeechBody, content)
            for name, text in (("input", body.input), ("instructions", body.instructions), ("ref_text", body.ref_text)):
                self._check_length(name, text or "")
            card, voice = await choose_voice(body, await self._loaded(), self._library)
        order = body.to_request(card, voice)
        chunks = open_stream(self._decoder, "synthesize", card.name, order)
        headers = {"X-Model": card.name, "X-Seed": str(order.seed)}
        with renamed_field("voice", "voice" if body.speaker_embedding is None else "speaker_embedding"):
            return await audio_response(chunks, body.response_format, card.sample_rate_hz, headers, stream=body.stream)

    def _check_length(self, name: str, text: str) -> None:
        if len(text) > self._args.max_input_characters:
            message = f"{name} has {len(text)} characters; the limit is {self._args.max_input_characters}"
            raise HttpError(400, message, param=name, code=f"{name}_too_long")

    async def _loaded(self) -> dict[str, ModelCard]:
        """Cards of the models, which do not change once they are loaded. Raises HttpError 503."""
        if not self._cards:
            self._cards = await self._describe()
        return self._cards

    async def _describe(self) -> dict[str, ModelCard]:
        async def ask() -> list[ModelCard]:
            cards: list[ModelCard] = await self._decoder.describe.remote()
            if self._encoder is not None:
                await self._encoder.describe.remote()
            return cards

        try:
            cards = await asyncio.wait_for(ask(), _DESCRIBE_TIMEOUT_S)
        except TimeoutError:
            raise not_loaded() from None
        return {card.name: card for card in cards}

    @asynccontextmanager
    async def _body(self, request: Request, expected_type: str) -> AsyncIterator[bytes]:
        """The body, bounded in type, size and time; within, it counts among the bytes under way. Raises HttpError."""
        if refused := [name for name in _SERVE_HEADERS if name in request.headers]:
            raise HttpError(400, f"the header {refused[0]} is not accepted", code="header_not_accepted")
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if content_type != expected_type:
            message = f"content type {content_type or 'missing'!r}; send {expected_type}"
            raise HttpError(415, message, code="unsupported_media_type")
        body = bytearray()
        try:
            await self._read(request, body)
            yield bytes(body)
        finally:
            self._bytes_under_way -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Append the request's body to `body`. Raises HttpError or Overloaded."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._args.max_body_bytes:
            raise self._too_large()
        stream = request.stream()
        try:
            async with asyncio.timeout(self._args.body_timeout_s):
                while (piece := await self._next_piece(stream)) is not None:
                    body += piece
                    self._bytes_under_way += len(piece)
                    if len(body) > self._args.max_body_bytes:
                        raise self._too_large()
                    if self._bytes_under_way > self._args.max_bytes_under_way:
                        raise Overloaded("too many large requests are under way")
        except TimeoutError:
            total_s, pause_s = self._args.body_timeout_s, self._args.body_pause_s
            message = f"the body took too long: {total_s:g} s, and pauses of {pause_s:g} s, are allowed"
            raise HttpError(408, message, code="body_timeout") from None

    async def _next_piece(self, stream: AsyncIterator[bytes]) -> bytes | None:
        async with asyncio.timeout(self._args.body_pause_s):
            return await anext(stream, None)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self._args.max_body_bytes} bytes", code="body_too_large")
