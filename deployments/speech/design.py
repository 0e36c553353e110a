"""Voices made from a description: candidates to listen to, and a Base voice made of the one that is kept."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployments.access.caller import Caller
from deployments.errors import NotFound
from deployments.settings import VoiceStoreArgs
from deployments.speech.speech_streams import SpeechStreams
from deployments.speech.terms import Terms
from deployments.voices.library import VoiceLibrary
from deployments.voices.previews import PreviewStore
from deployments.voices.record import VoiceRecord
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.models import Models
from qwen_tts.audio import decode_audio, wav_header
from qwen_tts.errors import InvalidRequest
from qwen_tts.reference_audio import LONGEST_S, check_reference
from qwen_tts.request import (
    MAX_SEED,
    DesignedVoice,
    FinishReason,
    SpeechRequest,
    default_sampling,
    draw_seed,
    frame_limit,
)

# A voice cannot be cloned from a longer recording.
_MOST_FRAMES = int(LONGEST_S * 12.5)
_CUT_OFF = "the speech was cut off at the longest length"
# The `consent` in the record of a voice that belongs to no person.
_CONSENT = "designed"


@dataclass(frozen=True)
class VoiceDescription:
    """The voice that is wanted, and the text that the candidates speak."""

    description: str
    text: str
    language: str
    model: str | None
    candidates: int
    seed: int | None
    max_frames: int | None


@dataclass(frozen=True)
class Candidate:
    """A candidate for the described voice. `flaw` says why it is unfit to clone from, or is None."""

    seed: int
    wav: bytes
    finish_reason: FinishReason
    flaw: str | None
    preview_id: str | None = None


class VoiceDesigner:
    """Makes candidates from a description and stores them as voices, for one ingress replica."""

    def __init__(self, streams: SpeechStreams, library: VoiceLibrary, models: Models, voices: VoiceStoreArgs) -> None:
        self._streams = streams
        self._library = library
        self._models = models
        self._previews = PreviewStore(voices.url, ttl_s=voices.preview_ttl_s, limit=voices.max_previews)

    async def preview(self, caller: Caller, wanted: VoiceDescription, terms: Terms) -> list[Candidate]:
        """Return candidates, kept for a while under their preview ids. Raises Overloaded."""
        candidates = await self._candidates(wanted, terms)
        run, add = self._library.storage.run, self._previews.add
        ids = await asyncio.gather(*(run(add, _described(caller, wanted, one), one.wav) for one in candidates))
        return [replace(one, preview_id=preview_id) for one, preview_id in zip(candidates, ids, strict=True)]

    async def keep_preview(self, caller: Caller, preview_id: str, name: str, *, overwrite: bool) -> VoiceRecord:
        """Store a preview as a voice. Raises NotFound, and the errors of VoiceLibrary.add."""
        described, wav = await self._library.storage.run(self._previews.get, preview_id)
        if not caller.sees(described.get("owner")):
            raise NotFound("preview", preview_id)
        record = await self._keep(caller, name, wav, described, overwrite)
        await self._library.storage.run(self._previews.delete, preview_id)
        return record

    async def design(
        self, caller: Caller, name: str, wanted: VoiceDescription, terms: Terms, *, overwrite: bool
    ) -> tuple[VoiceRecord, list[Candidate], Candidate]:
        """Store the first candidate without a flaw. Return its record, all candidates, and the one that was chosen.

        Raises InvalidRequest `no_fit_candidate` when all of them have a flaw, and Overloaded.
        """
        await self._library.check_free(caller, name, overwrite=overwrite)  # before the work
        candidates = await self._candidates(wanted, terms)
        chosen = next((one for one in candidates if one.flaw is None), None)
        if chosen is None:
            flaws = "; ".join(sorted({str(one.flaw) for one in candidates}))
            message = f"no candidate is fit to clone from ({flaws}); omit name, listen to the candidates and keep one"
            raise InvalidRequest(message, None, "no_fit_candidate")
        described = _described(caller, wanted, chosen)
        record = await self._keep(caller, name, chosen.wav, described, overwrite)
        return record, candidates, chosen

    async def _candidates(self, wanted: VoiceDescription, terms: Terms) -> list[Candidate]:
        models = self._models
        card = (
            models.first("voice_design")
            if models.is_auto(wanted.model)
            else models.require(models.named(str(wanted.model)), "voice_design", "model")
        )
        if not wanted.description.strip():
            raise InvalidRequest("description is empty: describe how the voice sounds", "description", "missing_field")
        talker, predictor = default_sampling(card.defaults)
        first = draw_seed() if wanted.seed is None else wanted.seed
        requests = [
            SpeechRequest(
                wanted.text,
                DesignedVoice(wanted.description),
                wanted.language,
                sampling=talker,
                predictor_sampling=predictor,
                repetition_penalty=card.defaults.repetition_penalty,
                seed=(first + index) % (MAX_SEED + 1),
                max_frames=wanted.max_frames,
            )
            for index in range(wanted.candidates)
        ]
        requests = [replace(request, max_frames=frame_limit(request, _MOST_FRAMES)) for request in requests]
        begun = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:  # unlike gather, it stops the others when one fails
                tasks = [group.create_task(self._first(card, requests[0], terms, begun))]
                tasks += [group.create_task(self._further(card, request, terms, begun)) for request in requests[1:]]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _first(self, card: ModelCard, request: SpeechRequest, terms: Terms, begun: asyncio.Event) -> Candidate:
        """Speak the first candidate. It waits like any new request, and the others begin when it has its place."""
        async with self._streams.open(card, request, terms) as chunks:
            begun.set()
            return await self._candidate(card, request, chunks)

    async def _further(self, card: ModelCard, request: SpeechRequest, terms: Terms, begun: asyncio.Event) -> Candidate:
        """Speak a further candidate. It waits until a place is free, so that work that has begun is completed."""
        await begun.wait()
        async with self._streams.open(card, request, terms, due_s=math.inf) as chunks:
            return await self._candidate(card, request, chunks)

    async def _candidate(self, card: ModelCard, request: SpeechRequest, chunks: AsyncIterator[AudioChunk]) -> Candidate:
        pcm, reason = bytearray(), None
        async for chunk in chunks:
            pcm += chunk.pcm
            reason = chunk.finish_reason
        assert reason is not None, "the last chunk of a stream has a finish reason"
        wav = wav_header(card.sample_rate_hz, len(pcm)) + pcm
        flaw = _CUT_OFF if reason != "stop" else await asyncio.to_thread(_unfit, wav)
        return Candidate(request.seed, wav, reason, flaw)

    async def _keep(
        self, caller: Caller, name: str, wav: bytes, described: Mapping[str, Any], overwrite: bool
    ) -> VoiceRecord:
        return await self._library.add(
            caller,
            name,
            wav,
            consent=_CONSENT,
            ref_text=described["ref_text"],
            description=described["description"],
            source="design",
            overwrite=overwrite,
        )


def _unfit(wav: bytes) -> str | None:
    """Return why an upload of `wav` would be refused, or None."""
    try:
        check_reference(decode_audio(wav))
    except InvalidRequest as refusal:
        return refusal.message
    return None


def _described(caller: Caller, wanted: VoiceDescription, candidate: Candidate) -> dict[str, str | None]:
    """Return the fields that are stored with a candidate's audio.

    A candidate that was cut off has no `ref_text`, because its audio does not hold all the words.
    """
    ref_text = None if candidate.flaw == _CUT_OFF else wanted.text
    return {"description": wanted.description, "ref_text": ref_text, "owner": caller.name}
