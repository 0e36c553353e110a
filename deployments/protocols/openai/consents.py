"""Routes of recorded consents, which an uploaded voice may name."""

import asyncio
from typing import Annotated

from fastapi import Query, Request

from deployments.access.caller import caller_of
from deployments.edge import app
from deployments.errors import renamed_fields
from deployments.http.bodies import FORM, JSON
from deployments.http.openapi import BODY_ERRORS, errors, form_body, json_body
from deployments.protocols.openai.answers import Consent, ConsentDeleted, ConsentList, show_consent
from deployments.protocols.openai.uploads import check_label, parse_consent
from deployments.protocols.openai.voices import VoiceRoutes
from deployments.speech.utterance import RenameBody, parse_body
from qwen_tts.audio import audio_type, decode_audio
from qwen_tts.reference_audio import LONGEST_S, check_reference


class ConsentRoutes(VoiceRoutes):
    @app.get("/v1/audio/voice_consents", responses=errors(400, 500, 503))
    async def consents(
        self, request: Request, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> ConsentList:
        """The caller's consents, latest first; the next page is `after` the last one's id."""
        page, caller = self._consents.page, caller_of(request)
        records, has_more = await self._library.storage.run(page, caller, after, limit)
        data = [show_consent(record) for record in records]
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return ConsentList(data=data, first_id=first_id, last_id=last_id, has_more=has_more)

    @app.post(
        "/v1/audio/voice_consents",
        responses=errors(*BODY_ERRORS, 507),
        openapi_extra=form_body(
            "recording", {"name": "a label", "language": "the language spoken, as a BCP 47 tag such as en-US"}, {}
        ),
    )
    async def add_consent(self, request: Request) -> Consent:
        """Store a recording, of 1 to 60 s, in which a speaker consents to being cloned."""
        async with self._bodies.read(request, FORM) as body:
            content_type = request.headers.get("content-type", "")
            upload = await parse_consent(content_type, body, self._library.max_audio_bytes)
            with renamed_fields({"ref_audio": "recording"}):
                await asyncio.to_thread(lambda: check_reference(decode_audio(upload.audio, LONGEST_S)))
            mime_type = audio_type(upload.audio)
            add, record = self._consents.add, (upload.name, upload.language, upload.audio, mime_type)
            return show_consent(await self._library.storage.run(add, caller_of(request), *record))

    @app.get("/v1/audio/voice_consents/{consent_id}", responses=errors(404, 500, 503))
    async def consent(self, consent_id: str, request: Request) -> Consent:
        """A recorded consent."""
        return show_consent(await self._library.storage.run(self._consents.get, caller_of(request), consent_id))

    @app.post(
        "/v1/audio/voice_consents/{consent_id}",
        responses=errors(*BODY_ERRORS, 404),
        openapi_extra=json_body(RenameBody, rename={"name": "Anna, November"}),
    )
    async def rename_consent(self, consent_id: str, request: Request) -> Consent:
        """Give a consent another label."""
        async with self._bodies.read(request, JSON) as content:
            body = parse_body(RenameBody, content)
        check_label("name", body.name)
        rename, caller = self._consents.rename, caller_of(request)
        return show_consent(await self._library.storage.run(rename, caller, consent_id, body.name))

    @app.delete("/v1/audio/voice_consents/{consent_id}", responses=errors(404, 500, 503))
    async def delete_consent(self, consent_id: str, request: Request) -> ConsentDeleted:
        """Delete a consent's recording. Voices that name it stay."""
        await self._library.storage.run(self._consents.delete, caller_of(request), consent_id)
        return ConsentDeleted(id=consent_id)
