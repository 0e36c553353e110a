"""The HTTP edge: parse, resolve the model, hand over. No model code.

The first chunk is awaited before the status line is sent, so whatever can be refused is refused with its own status.
After that a failure can only cut the connection.

Serve copies the FastAPI app when `serve.ingress` decorates the class: whatever routes use must be defined above it.
"""

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.http_errors import HttpError, install_error_handlers, not_loaded
from deployments.messages import ModelCard
from deployments.response_stream import open_stream
from deployments.responses import audio_response
from deployments.schemas import parse_speech
from deployments.settings import IngressArgs

# How long a question about loading may take before the answer is "not yet".
_DESCRIBE_TIMEOUT_S = 2.0
# Request headers by which a client could ask Serve's proxy to keep working for nobody, or to stop early.
_SERVE_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")

app = FastAPI(title="qwen-tts", docs_url=None, redoc_url=None, openapi_url=None)
install_error_handlers(app)


@serve.ingress(app)
class Ingress:
    """One replica of the edge. It keeps nothing but the cards of the loaded models."""

    def __init__(self, decoder: DeploymentHandle[Any], args: IngressArgs) -> None:
        self._decoder = decoder
        self._args = args
        self._started = int(time.time())
        self._cards: dict[str, ModelCard] = {}

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
        """Built-in speakers of every model, and the languages they speak."""
        cards = await self._loaded()
        data = [
            {"id": speaker, "object": "audio.voice", "model": name, "languages": list(card.languages)}
            for name, card in cards.items()
            for speaker in card.speakers
        ]
        return JSONResponse({"object": "list", "voices": sorted({str(v["id"]) for v in data}), "data": data})

    @app.post("/v1/audio/speech")
    async def speech(self, request: Request) -> Response:
        body = parse_speech(await self._read_json(request))
        if len(body.input) > self._args.max_input_characters:
            message = f"input has {len(body.input)} characters; the limit is {self._args.max_input_characters}"
            raise HttpError(400, message, param="input", code="input_too_long")
        card = await self._card(body.model)
        order = body.to_request(card)
        chunks = open_stream(self._decoder, "synthesize", card.name, order)
        headers = {"X-Model": card.name, "X-Seed": str(order.seed)}
        return await audio_response(chunks, body.response_format, card.sample_rate_hz, headers, stream=body.stream)

    async def _card(self, model: str | None) -> ModelCard:
        """The card of `model`, by default the first. Raises HttpError 404 or 503."""
        cards = await self._loaded()
        if model is None:
            return next(iter(cards.values()))
        if model not in cards:
            message = f"model {model!r} does not exist; models: {', '.join(cards)}"
            raise HttpError(404, message, param="model", code="model_not_found")
        return cards[model]

    async def _loaded(self) -> dict[str, ModelCard]:
        """Cards of the models, which do not change once they are loaded. Raises HttpError 503."""
        if not self._cards:
            self._cards = await self._describe()
        return self._cards

    async def _describe(self) -> dict[str, ModelCard]:
        async def ask() -> list[ModelCard]:
            cards: list[ModelCard] = await self._decoder.describe.remote()
            return cards

        try:
            cards = await asyncio.wait_for(ask(), _DESCRIBE_TIMEOUT_S)
        except TimeoutError:
            raise not_loaded() from None
        return {card.name: card for card in cards}

    async def _read_json(self, request: Request) -> bytes:
        """The body, bounded in type, size and time."""
        if refused := [name for name in _SERVE_HEADERS if name in request.headers]:
            raise HttpError(400, f"the header {refused[0]} is not accepted", code="header_not_accepted")
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if content_type != "application/json":
            message = f"content type {content_type or 'missing'!r}; send application/json"
            raise HttpError(415, message, code="unsupported_media_type")
        try:
            async with asyncio.timeout(self._args.body_timeout_s):
                return await self._read_bounded(request)
        except TimeoutError:
            raise HttpError(408, f"the body took longer than {self._args.body_timeout_s} s") from None

    async def _read_bounded(self, request: Request) -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._args.max_body_bytes:
                message = f"the body is larger than {self._args.max_body_bytes} bytes"
                raise HttpError(413, message, code="body_too_large")
        return bytes(body)
