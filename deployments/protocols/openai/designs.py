"""Routes of voices made from a description."""

from fastapi import APIRouter, Request

from deployments.http.bodies import JSON, BodyReader, parse_body
from deployments.http.gate import caller_of
from deployments.http.max_wait import max_wait_of
from deployments.http.openapi import BODY_ERRORS, errors, json_body
from deployments.protocols.openai.answers import (
    DesignedVoiceAnswer,
    PreviewList,
    StoredVoice,
    show_preview,
    show_voice,
)
from deployments.protocols.openai.bodies import DesignBody, KeepBody
from deployments.speech.service import SpeechService
from qwen_tts.errors import InvalidRequest


def routes(service: SpeechService, bodies: BodyReader) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/audio/voices/design",
        responses=errors(*BODY_ERRORS, 404, 409, 422, 507),
        openapi_extra=json_body(
            DesignBody, two={"description": "A warm, low voice.", "input": "This is how I sound.", "candidates": 2}
        ),
    )
    async def design_voice(request: Request) -> PreviewList | DesignedVoiceAnswer:
        """Make previews of a described voice. With a name, the first one without a flaw is stored as a voice."""
        async with bodies.read(request, JSON) as content:
            body = parse_body(DesignBody, content)
        service.limits.check_other("input", body.input)
        service.limits.check_other("description", body.description)
        if body.candidates > service.args.max_candidates:
            message = f"candidates is {body.candidates}; at most {service.args.max_candidates} are made"
            raise InvalidRequest(message, "candidates", "out_of_range")
        await service.models.load()
        caller, designer = caller_of(request), service.designer
        terms = service.terms(caller, body.priority, max_wait_of(request), body.description)
        if body.name is None:
            previews = await designer.preview(caller, body.wanted, terms)
            return PreviewList(data=[show_preview(one) for one in previews])
        record, candidates, chosen = await designer.design(
            caller, body.name, body.wanted, terms, overwrite=body.overwrite
        )
        shown = [show_preview(one, chosen=one is chosen) for one in candidates]
        return DesignedVoiceAnswer(**show_voice(record).model_dump(), previews=shown)

    @router.post(
        "/v1/audio/voices/design/{preview_id}",
        responses=errors(*BODY_ERRORS, 404, 409, 507),
        openapi_extra=json_body(KeepBody, keep={"name": "warm"}),
    )
    async def keep_preview(preview_id: str, request: Request) -> StoredVoice:
        """Store a preview as a voice."""
        async with bodies.read(request, JSON) as content:
            body = parse_body(KeepBody, content)
        await service.models.load()
        keep, caller = service.designer.keep_preview, caller_of(request)
        return show_voice(await keep(caller, preview_id, body.name, overwrite=body.overwrite))

    return router
