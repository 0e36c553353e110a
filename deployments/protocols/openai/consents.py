"""Routes of recorded consents, which an uploaded voice may name."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request

from deployments.access.caller import Caller
from deployments.errors import renamed_fields
from deployments.http.bodies import FORM, JSON, BodyReader, parse_body
from deployments.http.gate import caller_of
from deployments.http.openapi import BODY_ERRORS, errors, form_body, json_body
from deployments.protocols.openai.answers import Consent, ConsentDeleted, ConsentList, show_consent
from deployments.protocols.openai.bodies import RenameBody
from deployments.protocols.openai.uploads import ConsentUpload, check_label, parse_consent
from deployments.speech.service import SpeechService
from deployments.voices.consents import ConsentRecord
from qwen_tts.audio import audio_type, decode_audio
from qwen_tts.reference_audio import LONGEST_S, check_reference

_FORM = form_body(
    "recording", {"name": "a label", "language": "the language spoken, as a BCP 47 tag such as en-US"}, {}
)


def routes(service: SpeechService, bodies: BodyReader) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/audio/voice_consents", responses=errors(400, 500, 503))
    async def consents(
        request: Request, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> ConsentList:
        """List the caller's consents, latest first. For the next page send the last id as `after`."""
        page, caller = service.consents.page, caller_of(request)
        records, has_more = await service.library.storage.run(page, caller, after, limit)
        return _page(records, has_more)

    @router.post(
        "/v1/audio/voice_consents",
        responses=errors(*BODY_ERRORS, 507),
        openapi_extra=_FORM,
    )
    async def add_consent(request: Request) -> Consent:
        """Store a recording of 1 to 60 s in which a speaker consents to being cloned."""
        async with bodies.read(request, FORM) as body:
            content_type = request.headers.get("content-type", "")
            upload = await parse_consent(content_type, body, service.library.max_audio_bytes)
            return show_consent(await _store(service, caller_of(request), upload))

    @router.get("/v1/audio/voice_consents/{consent_id}", responses=errors(404, 500, 503))
    async def consent(consent_id: str, request: Request) -> Consent:
        """Return a recorded consent."""
        return show_consent(await service.library.storage.run(service.consents.get, caller_of(request), consent_id))

    @router.post(
        "/v1/audio/voice_consents/{consent_id}",
        responses=errors(*BODY_ERRORS, 404),
        openapi_extra=json_body(RenameBody, rename={"name": "Anna, November"}),
    )
    async def rename_consent(consent_id: str, request: Request) -> Consent:
        """Change the label of a consent."""
        async with bodies.read(request, JSON) as content:
            body = parse_body(RenameBody, content)
        check_label("name", body.name)
        rename, caller = service.consents.rename, caller_of(request)
        return show_consent(await service.library.storage.run(rename, caller, consent_id, body.name))

    @router.delete("/v1/audio/voice_consents/{consent_id}", responses=errors(404, 500, 503))
    async def delete_consent(consent_id: str, request: Request) -> ConsentDeleted:
        """Delete a consent's recording. Voices that name it stay."""
        await service.library.storage.run(service.consents.delete, caller_of(request), consent_id)
        return ConsentDeleted(id=consent_id)

    return router


def _page(records: list[ConsentRecord], has_more: bool) -> ConsentList:
    data = [show_consent(record) for record in records]
    first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
    return ConsentList(data=data, first_id=first_id, last_id=last_id, has_more=has_more)


async def _store(service: SpeechService, caller: Caller, upload: ConsentUpload) -> ConsentRecord:
    with renamed_fields({"ref_audio": "recording"}):
        await asyncio.to_thread(lambda: check_reference(decode_audio(upload.audio, LONGEST_S)))
    record = (upload.name, upload.language, upload.audio, audio_type(upload.audio))
    return await service.library.storage.run(service.consents.add, caller, *record)
