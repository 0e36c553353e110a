"""Routes of stored voices."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployments.access.caller import Caller
from deployments.errors import renamed_fields
from deployments.http.bodies import FORM, BodyReader
from deployments.http.gate import caller_of
from deployments.http.openapi import BODY_ERRORS, errors, files, form_body
from deployments.protocols.openai.answers import (
    BuiltInVoice,
    StoredVoice,
    UploadedVoice,
    VoiceDeleted,
    VoiceList,
    show_voice,
)
from deployments.protocols.openai.uploads import Upload, parse_upload
from deployments.speech.service import SpeechService
from deployments.voices.consents import CONSENT_PREFIX
from deployments.voices.record import VoiceRecord

_UPLOAD = form_body(
    "audio_sample",
    {
        "name": "a name for the voice: letters, digits, '_', '.' and '-'",
        "consent": "the speaker's consent to being cloned, in words or as the id of a recorded one",
    },
    {
        "ref_text": "the words spoken in the recording; without them only the sound of the voice is used",
        "speaker_description": "a description for people to read",
        "x_vector_only_mode": "true or false: use only the sound of the voice",
        "overwrite": "true or false: replace a voice of that name",
        "type": "audio_sample",
    },
)
_RECORDING = files(
    "The recording, in the container in which it was uploaded", "audio/*", "video/*", "application/octet-stream"
) | errors(404, 500, 503)


def routes(service: SpeechService, bodies: BodyReader) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/audio/voices", responses=errors(500, 503))
    async def voices(request: Request) -> VoiceList:
        """List the built-in speakers of every model with their languages, and the caller's stored voices."""
        await service.models.load()
        return _all_voices(service, await service.library.list(caller_of(request)))

    @router.post(
        "/v1/audio/voices",
        responses=errors(*BODY_ERRORS, 404, 409, 507),
        openapi_extra=_UPLOAD,
    )
    async def add_voice(request: Request) -> UploadedVoice:
        """Store a voice cloned from a recording of 1 to 60 s."""
        caller = caller_of(request)
        async with bodies.read(request, FORM) as body:
            upload = await parse_upload(request.headers.get("content-type", ""), body, service.library.max_audio_bytes)
            record = await _store(service, caller, upload)
        voice = show_voice(record)
        return UploadedVoice(**voice.model_dump(), voice=voice)

    @router.get("/v1/audio/voices/{name}", responses=errors(404, 500, 503))
    async def voice(name: str, request: Request) -> StoredVoice:
        """Return a stored voice."""
        return show_voice(await service.library.get(caller_of(request), name))

    @router.get(
        "/v1/audio/voices/{name}/audio",
        response_class=Response,
        responses=_RECORDING,
    )
    async def voice_audio(name: str, request: Request) -> Response:
        """Return the recording as it was uploaded."""
        record, audio = await service.library.audio(caller_of(request), name)
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'attachment; filename="{record.name}"'}
        return Response(audio, media_type=record.mime_type, headers=headers)

    @router.delete("/v1/audio/voices/{name}", responses=errors(404, 500, 503))
    async def delete_voice(name: str, request: Request) -> VoiceDeleted:
        """Delete a stored voice, with its recording."""
        await service.library.delete(caller_of(request), name)
        return VoiceDeleted(id=name)

    return router


def _all_voices(service: SpeechService, records: Sequence[VoiceRecord]) -> VoiceList:
    built_in = [
        BuiltInVoice(id=speaker, model=card.name, languages=list(card.languages))
        for card in service.models
        for speaker in card.speakers
    ]
    stored = [show_voice(record) for record in records]
    data: list[BuiltInVoice | StoredVoice] = [*built_in, *stored]
    return VoiceList(
        voices=sorted({*(voice.id for voice in data), *service.library.aliases}),
        data=data,
        uploaded_voices=stored,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


async def _store(service: SpeechService, caller: Caller, upload: Upload) -> VoiceRecord:
    service.limits.check_other("ref_text", upload.ref_text)
    service.limits.check_other("speaker_description", upload.description)
    if upload.consent.startswith(CONSENT_PREFIX):
        await service.library.storage.run(service.consents.get, caller, upload.consent)
    await service.models.load()
    with renamed_fields({"ref_audio": "audio_sample"}):
        return await service.library.add(
            caller,
            upload.name,
            upload.audio,
            consent=upload.consent,
            ref_text=upload.ref_text,
            description=upload.description,
            source="upload",
            overwrite=upload.overwrite,
        )
