"""Design, then keep: previews of a described voice, and a Base voice made of the one chosen."""

import asyncio
import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.access.caller import Caller
from deployments.errors import HttpError
from deployments.protocols.openai.answers import Preview
from deployments.settings import VoiceStoreArgs
from deployments.speech.utterance import DesignBody
from deployments.voices.library import VoiceLibrary
from deployments.voices.previews import PreviewNotFound, PreviewStore
from deployments.voices.record import VoiceRecord
from deployments.wire.messages import ModelCard
from deployments.wire.models import is_auto, model_of, named_model, require
from deployments.wire.streams import collect, open_stream
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

# Longer ones could not be cloned from.
_MOST_FRAMES = int(LONGEST_S * 12.5)
_CUT_OFF = "the speech was cut off at its longest"
# What stands in the record of a voice that is nobody's.
_CONSENT = "designed"


@dataclass(frozen=True)
class Candidate:
    """One way the described voice may sound."""

    seed: int
    wav: bytes
    finish_reason: FinishReason
    flaw: str | None  # why this is poor to clone from


class VoiceDesigner:
    """One ingress replica's way from a description to a stored voice."""

    def __init__(self, decoder: DeploymentHandle[Any], library: VoiceLibrary, voices: VoiceStoreArgs) -> None:
        self._decoder = decoder
        self._library = library
        self._previews = PreviewStore(voices.url, ttl_s=voices.preview_ttl_s, limit=voices.max_previews)

    async def preview(self, caller: Caller, body: DesignBody, cards: Mapping[str, ModelCard]) -> list[Preview]:
        """Candidates to listen to, kept for a while under their ids."""
        candidates = await self._candidates(body, cards)
        run, add = self._library.storage.run, self._previews.add
        ids = await asyncio.gather(*(run(add, _described(caller, body, one), one.wav) for one in candidates))
        return [_shown(one, id=id_) for one, id_ in zip(candidates, ids, strict=True)]

    async def keep_preview(
        self, caller: Caller, preview_id: str, name: str, cards: Mapping[str, ModelCard], *, overwrite: bool
    ) -> VoiceRecord:
        """Store a preview as a voice. Raises PreviewNotFound and what VoiceLibrary.add raises."""
        described, wav = await self._library.storage.run(self._previews.get, preview_id)
        if not caller.sees(described.get("owner")):
            raise PreviewNotFound(preview_id)
        record = await self._keep(caller, name, wav, described, cards, overwrite)
        await self._library.storage.run(self._previews.delete, preview_id)
        return record

    async def design(
        self, caller: Caller, name: str, body: DesignBody, cards: Mapping[str, ModelCard]
    ) -> tuple[VoiceRecord, list[Preview]]:
        """In one call: the first candidate without a flaw is stored. Raises HttpError when all of them have one."""
        await self._library.check_free(caller, name, cards, overwrite=body.overwrite)  # before the work
        candidates = await self._candidates(body, cards)
        chosen = next((one for one in candidates if one.flaw is None), None)
        if chosen is None:
            flaws = "; ".join(sorted({str(one.flaw) for one in candidates}))
            message = f"no candidate is fit to clone from ({flaws}); ask without name to listen to them and keep one"
            raise HttpError(422, message, code="no_fit_candidate")
        described = _described(caller, body, chosen)
        record = await self._keep(caller, name, chosen.wav, described, cards, body.overwrite)
        return record, [_shown(one, chosen=one is chosen) for one in candidates]

    async def _candidates(self, body: DesignBody, cards: Mapping[str, ModelCard]) -> list[Candidate]:
        card = (
            model_of("voice_design", cards)
            if is_auto(body.model, cards)
            else require(named_model(str(body.model), cards), "voice_design", cards, "model")
        )
        if not body.description.strip():
            raise InvalidRequest("description is empty: say how the voice sounds", "description", "missing_field")
        talker, predictor = default_sampling(card.defaults)
        first = draw_seed() if body.seed is None else body.seed
        orders = [
            SpeechRequest(
                body.input,
                DesignedVoice(body.description),
                body.language,
                sampling=talker,
                predictor_sampling=predictor,
                repetition_penalty=card.defaults.repetition_penalty,
                seed=(first + index) % (MAX_SEED + 1),
                max_frames=body.max_new_tokens,
            )
            for index in range(body.candidates)
        ]
        orders = [dataclasses.replace(order, max_frames=frame_limit(order, _MOST_FRAMES)) for order in orders]
        try:
            async with asyncio.TaskGroup() as group:  # unlike gather, it stops the others when one fails
                tasks = [group.create_task(self._speak(card, order)) for order in orders]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _speak(self, card: ModelCard, order: SpeechRequest) -> Candidate:
        pcm, last = await collect(open_stream(self._decoder, "synthesize", card.name, order))
        assert last.finish_reason is not None
        wav = wav_header(card.sample_rate_hz, len(pcm)) + pcm
        flaw = _CUT_OFF if last.finish_reason != "stop" else await asyncio.to_thread(_unfit, wav)
        return Candidate(order.seed, wav, last.finish_reason, flaw)

    async def _keep(
        self,
        caller: Caller,
        name: str,
        wav: bytes,
        described: Mapping[str, Any],
        cards: Mapping[str, ModelCard],
        overwrite: bool,
    ) -> VoiceRecord:
        return await self._library.add(
            caller,
            name,
            wav,
            cards,
            consent=_CONSENT,
            ref_text=described["ref_text"],
            description=described["description"],
            source="design",
            overwrite=overwrite,
        )


def _unfit(wav: bytes) -> str | None:
    """Why an upload of this would be refused, None if it would not."""
    try:
        check_reference(decode_audio(wav))
    except InvalidRequest as refusal:
        return refusal.message
    return None


def _described(caller: Caller, body: DesignBody, candidate: Candidate) -> dict[str, str | None]:
    """What is stored of a candidate beside its sound. The words of one that was cut off are not all in it."""
    ref_text = None if candidate.flaw == _CUT_OFF else body.input
    return {"description": body.description, "ref_text": ref_text, "owner": caller.name}


def _shown(candidate: Candidate, *, id: str | None = None, chosen: bool | None = None) -> Preview:
    return Preview(
        id=id,
        chosen=chosen,
        seed=candidate.seed,
        finish_reason=candidate.finish_reason,
        flaw=candidate.flaw,
        audio=base64.b64encode(candidate.wav).decode(),
    )
