"""Routes of the voice library: stored voices, and designed ones."""

from fastapi import Request
from fastapi.responses import Response

from deployments.access.caller import caller_of
from deployments.edge import Edge, app
from deployments.errors import HttpError, renamed_fields
from deployments.http.bodies import FORM, JSON
from deployments.http.openapi import BODY_ERRORS, errors, files, form_body, json_body
from deployments.protocols.openai.answers import (
    BuiltInVoice,
    DesignedVoiceAnswer,
    PreviewList,
    StoredVoice,
    UploadedVoice,
    VoiceDeleted,
    VoiceList,
    show_voice,
)
from deployments.protocols.openai.uploads import parse_upload
from deployments.speech.utterance import DesignBody, KeepBody, parse_body
from deployments.voices.consents import CONSENT_PREFIX


class VoiceRoutes(Edge):
    @app.get("/v1/audio/voices", responses=errors(500, 503))
    async def voices(self, request: Request) -> VoiceList:
        """Built-in speakers of every model with the languages they speak, and the caller's stored voices."""
        cards = await self._loaded()
        built_in = [
            BuiltInVoice(id=speaker, model=name, languages=list(card.languages))
            for name, card in cards.items()
            for speaker in card.speakers
        ]
        stored = [show_voice(record) for record in await self._library.list(caller_of(request))]
        data: list[BuiltInVoice | StoredVoice] = [*built_in, *stored]
        return VoiceList(
            voices=sorted({*(voice.id for voice in data), *self._library.aliases}),
            data=data,
            uploaded_voices=stored,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )

    @app.post(
        "/v1/audio/voices",
        responses=errors(*BODY_ERRORS, 404, 409, 507),
        openapi_extra=form_body(
            "audio_sample",
            {
                "name": "what to call the voice: letters, digits, '_', '.' and '-'",
                "consent": "the speaker's consent to being cloned, in words or as the id of a recorded one",
            },
            {
                "ref_text": "the words spoken in the recording; without, only the sound of the voice is used",
                "speaker_description": "for people to read",
                "x_vector_only_mode": "true or false: use only the sound of the voice",
                "overwrite": "true or false: replace a voice of that name",
                "type": "audio_sample",
            },
        ),
    )
    async def add_voice(self, request: Request) -> UploadedVoice:
        """Store a voice cloned from a recording of 1 to 60 s."""
        caller = caller_of(request)
        async with self._bodies.read(request, FORM) as body:
            upload = await parse_upload(request.headers.get("content-type", ""), body, self._library.max_audio_bytes)
            self._check_length("ref_text", upload.ref_text or "")
            self._check_length("speaker_description", upload.description or "")
            if upload.consent.startswith(CONSENT_PREFIX):
                await self._library.storage.run(self._consents.get, caller, upload.consent)
            with renamed_fields({"ref_audio": "audio_sample"}):
                record = await self._library.add(
                    caller,
                    upload.name,
                    upload.audio,
                    await self._loaded(),
                    consent=upload.consent,
                    ref_text=upload.ref_text,
                    description=upload.description,
                    source="upload",
                    overwrite=upload.overwrite,
                )
        voice = show_voice(record)
        return UploadedVoice(**voice.model_dump(), voice=voice)

    @app.post(
        "/v1/audio/voices/design",
        responses=errors(*BODY_ERRORS, 404, 409, 422, 507),
        openapi_extra=json_body(
            DesignBody, two={"description": "A warm, low voice.", "input": "This is how I sound.", "candidates": 2}
        ),
    )
    async def design_voice(self, request: Request) -> PreviewList | DesignedVoiceAnswer:
        """Previews of a described voice; with a name, the best of them is stored as well."""
        async with self._bodies.read(request, JSON) as content:
            body = parse_body(DesignBody, content)
        self._check_length("input", body.input)
        self._check_length("description", body.description)
        if body.candidates > self._args.max_candidates:
            message = f"candidates is {body.candidates}; at most {self._args.max_candidates} are made"
            raise HttpError(400, message, param="candidates", code="out_of_range")
        cards = await self._loaded()
        if body.name is None:
            return PreviewList(data=await self._designer.preview(caller_of(request), body, cards))
        record, previews = await self._designer.design(caller_of(request), body.name, body, cards)
        return DesignedVoiceAnswer(**show_voice(record).model_dump(), previews=previews)

    @app.post(
        "/v1/audio/voices/design/{preview_id}",
        responses=errors(*BODY_ERRORS, 404, 409, 507),
        openapi_extra=json_body(KeepBody, keep={"name": "warm"}),
    )
    async def keep_preview(self, preview_id: str, request: Request) -> StoredVoice:
        """Store a preview as a voice."""
        async with self._bodies.read(request, JSON) as content:
            body = parse_body(KeepBody, content)
        cards = await self._loaded()
        keep, caller = self._designer.keep_preview, caller_of(request)
        return show_voice(await keep(caller, preview_id, body.name, cards, overwrite=body.overwrite))

    @app.get("/v1/audio/voices/{name}", responses=errors(404, 500, 503))
    async def voice(self, name: str, request: Request) -> StoredVoice:
        """A stored voice."""
        return show_voice(await self._library.get(caller_of(request), name))

    @app.get(
        "/v1/audio/voices/{name}/audio",
        response_class=Response,
        responses=files("The recording, in the container it came in", "audio/*", "video/*", "application/octet-stream")
        | errors(404, 500, 503),
    )
    async def voice_audio(self, name: str, request: Request) -> Response:
        """The recording as it was uploaded."""
        record, audio = await self._library.audio(caller_of(request), name)
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'attachment; filename="{record.name}"'}
        return Response(audio, media_type=record.mime_type, headers=headers)

    @app.delete("/v1/audio/voices/{name}", responses=errors(404, 500, 503))
    async def delete_voice(self, name: str, request: Request) -> VoiceDeleted:
        """Forget a stored voice, everywhere."""
        await self._library.delete(caller_of(request), name)
        return VoiceDeleted(id=name)
