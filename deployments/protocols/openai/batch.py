"""POST /v1/audio/speech/batch: several utterances, each of which succeeds or fails by itself."""

import asyncio
import base64
import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from deployments.access.caller import Caller
from deployments.access.limits import CallerLimits
from deployments.errors import Refusal, refusal_of
from deployments.http.bodies import JSON, BodyReader, parse_fields, parse_object
from deployments.http.gate import caller_of
from deployments.http.max_wait import max_wait_of
from deployments.http.openapi import BODY_ERRORS, errors, json_body
from deployments.http.responses import audio_file
from deployments.protocols.fields import UtteranceFields
from deployments.protocols.openai.answers import BatchAnswer, BatchResult, usage_object
from deployments.protocols.openai.bodies import Utterance
from deployments.speech.encoding import BatchRoom
from deployments.speech.service import SpeechService
from qwen_tts.errors import InvalidRequest

MAX_ITEMS = 32

Fields = dict[str, Any]


class BatchBody(UtteranceFields):
    """Up to 32 items, and fields that all items share. An item's own field overrides a shared one."""

    # Only for /openapi.json: items are parsed one by one.

    items: Annotated[list[Utterance], Field(min_length=1, max_length=MAX_ITEMS)]


def routes(service: SpeechService, bodies: BodyReader, limits: CallerLimits) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/audio/speech/batch",
        responses=errors(*BODY_ERRORS),
        openapi_extra=json_body(
            BatchBody, two={"voice": "ryan", "items": [{"input": "One."}, {"input": "Two.", "voice": "serena"}]}
        ),
    )
    async def batch(request: Request) -> BatchAnswer:
        """Speak up to 32 texts, several at the same time. The error of an item is in that item's result."""
        async with bodies.read(request, JSON) as content:
            items = parse_batch(content)
            caller = caller_of(request)
            places = asyncio.Semaphore(service.args.batch_concurrency)
            room = BatchRoom(service.args.max_batch_audio_bytes)
            max_wait_s = max_wait_of(request)

            async def in_turn(index: int, fields: Fields) -> BatchResult:
                async with places:
                    return await _item(service, limits, caller, index, fields, room, max_wait_s)

            await service.models.load()  # before the items, which would all report the same error
            async with asyncio.TaskGroup() as group:  # it stops all items when the caller leaves
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

    return router


def parse_batch(content: bytes) -> list[Fields]:
    """Return the fields of every item with the shared ones, not checked yet. Raises InvalidRequest."""
    shared = parse_object(content)
    items = shared.pop("items", None)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        code = "missing_field" if items is None else "invalid_value"
        raise InvalidRequest("items must be a list of objects", "items", code)
    if not 1 <= len(items) <= MAX_ITEMS:
        message = f"items has {len(items)} entries; it must have 1 to {MAX_ITEMS}"
        raise InvalidRequest(message, "items", "out_of_range")
    parse_fields(UtteranceFields, shared)
    return [{"priority": "batch", **shared, **item} for item in items]


async def _item(
    service: SpeechService,
    limits: CallerLimits,
    caller: Caller,
    index: int,
    fields: Mapping[str, Any],
    room: BatchRoom,
    max_wait_s: float | None,
) -> BatchResult:
    try:
        if index > 0:  # the gate has counted the first one
            limits.count(caller)
        item = parse_fields(Utterance, fields)
        resolved, spoken = await service.prepare(caller, item.resolved(), item.input, item.sent_as, max_wait_s)
        item.check_task(resolved.card)
        file = await audio_file(service.speak(resolved, spoken, whole=True, room=room))
    except Exception as error:  # any error is an error of this item alone
        return _failed(index, refusal_of(error))
    return BatchResult(
        index=index,
        status="success",
        audio_data=base64.b64encode(file.content).decode(),
        media_type=file.media_type,
        finish_reason=file.finish_reason,
        model=resolved.card.name,
        seed=spoken.seed,
        usage=usage_object(file.usage),
    )


def _failed(index: int, refusal: Refusal) -> BatchResult:
    return BatchResult(
        index=index,
        status="error",
        error=refusal.message,
        error_param=refusal.param,
        error_code=refusal.code,
    )
