"""Routes that speak."""

import asyncio
import base64
import secrets

from fastapi import Request
from fastapi.responses import Response

from deployments.access.caller import Caller, caller_of
from deployments.audio.encoder import MEDIA_TYPES, AudioEncoder
from deployments.edge import Edge, app
from deployments.errors import HttpError, renamed_fields, to_http_error
from deployments.http.bodies import JSON
from deployments.http.openapi import BODY_ERRORS, errors, files, json_body
from deployments.http.responses import audio_file, file_response, stream_response
from deployments.protocols.openai.answers import BatchAnswer, BatchResult, usage_object
from deployments.protocols.openai.batch import BatchBody, Fields, failed, parse_batch, parse_item
from deployments.protocols.openai.events import MEDIA_TYPE as EVENTS
from deployments.speech.utterance import SpeechBody, Utterance, parse_body
from deployments.speech.voice_choice import choose_voice
from deployments.wire.messages import ModelCard
from deployments.wire.streams import Room
from qwen_tts.request import SpeechRequest

_SPOKEN = {"input": "One two three.", "voice": "ryan", "language": "english"}


class SpeechRoutes(Edge):
    @app.post(
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
    async def speech(self, request: Request) -> Response:
        """Speak a text. The audio leaves while it is being made, unless `stream` is false."""
        async with self._bodies.read(request, JSON) as content:
            body = parse_body(SpeechBody, content).resolved()
            events = body.stream_format == "sse"
            if events and not body.stream:
                message = "stream_format sse is a stream; leave stream out"
                raise HttpError(400, message, param="stream", code="conflicting_fields")
            card, order = await self._order(caller_of(request), body)
        return await self._answer(body, card, order, events=events)

    async def _answer(
        self, body: SpeechBody, card: ModelCard, order: SpeechRequest, *, events: bool = False
    ) -> Response:
        """The speech, as it is made or whole."""
        headers = {"X-Model": card.name, "X-Seed": str(order.seed)}
        encoder = _encoder(body, card, whole=not body.stream)
        chunks = await self._speech.open(order, card, await self._loaded())
        with renamed_fields(body.sent_as):
            if not body.stream:
                return file_response(await audio_file(chunks, encoder), headers)
            return await stream_response(chunks, encoder, headers, order.text if events else None)

    @app.post(
        "/v1/audio/speech/batch",
        responses=errors(*BODY_ERRORS),
        openapi_extra=json_body(
            BatchBody, two={"voice": "ryan", "items": [{"input": "One."}, {"input": "Two.", "voice": "serena"}]}
        ),
    )
    async def batch(self, request: Request) -> BatchAnswer:
        """Speak up to 32 texts, some at a time. An item that fails says so in its result, and only there."""
        async with self._bodies.read(request, JSON) as content:
            items = parse_batch(content)
            caller = caller_of(request)
            turns, room = asyncio.Semaphore(self._args.batch_concurrency), Room(self._args.max_batch_audio_bytes)

            async def in_turn(index: int, fields: Fields) -> BatchResult:
                async with turns:
                    return await self._item(caller, index, fields, room)

            await self._loaded()  # where it is not, no item need say so
            async with asyncio.TaskGroup() as group:  # which stops them all when the caller leaves
                tasks = [group.create_task(in_turn(index, fields)) for index, fields in enumerate(items)]
        results = [task.result() for task in tasks]
        succeeded = sum(result.status == "success" for result in results)
        return BatchAnswer(
            id=f"speech-batch-{secrets.token_hex(12)}",
            results=results,
            total=len(results),
            succeeded=succeeded,
            failed=len(results) - succeeded,
        )

    async def _item(self, caller: Caller, index: int, fields: Fields, room: Room) -> BatchResult:
        try:
            if index > 0:  # the first was counted at the gate
                self.gate.limits.count(caller)
            body = parse_item(fields)
            card, order = await self._order(caller, body)
            encoder = _encoder(body, card, whole=True)
            chunks = await self._speech.open(order, card, await self._loaded())
            with renamed_fields(body.sent_as):
                file = await audio_file(chunks, encoder, room)
        except Exception as error:  # whatever it was, it is this item's alone
            return failed(index, to_http_error(error))
        return BatchResult(
            index=index,
            status="success",
            audio_data=base64.b64encode(file.content).decode(),
            media_type=file.media_type,
            finish_reason=file.finish_reason,
            model=card.name,
            seed=order.seed,
            usage=usage_object(file.usage),
        )

    async def _order(self, caller: Caller, body: Utterance) -> tuple[ModelCard, SpeechRequest]:
        """The model that speaks, and what it is to say. Raises what a caller is told."""
        with renamed_fields(body.sent_as):
            self._check_length("input", body.input, self._args.long_text.max_characters)
            for name, text in (("instructions", body.instructions), ("ref_text", body.ref_text)):
                self._check_length(name, text or "")
            card, voice = await choose_voice(caller, body, await self._loaded(), self._library)
            return card, await asyncio.to_thread(body.to_request, card, voice)  # numbers in words take their time


def _encoder(body: Utterance, card: ModelCard, *, whole: bool) -> AudioEncoder:
    """Raises InvalidRequest."""
    return AudioEncoder(body.response_format, card.sample_rate_hz, body.sample_rate, body.speed, whole=whole)
