"""Candidates of a design: the choice of the one that is stored, and their common success or failure."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.access.caller import EVERYONE, Caller
from deployments.errors import NotFound, refusal_of
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.admission import Admission
from deployments.speech.design import VoiceDescription, VoiceDesigner
from deployments.speech.speech_streams import SpeechStreams
from deployments.voices.library import VoiceLibrary
from deployments.wire.messages import AudioChunk, ModelCard
from qwen_tts.audio import to_pcm16
from qwen_tts.config import GenerationDefaults
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import FinishReason, SpeechRequest
from tests.deployments.loaded import TERMS, Spoken, loaded, streams
from tests.recordings import recording

CARD = ModelCard("design", "voice_design", (), ("english",), GenerationDefaults(), 24000, 300)


def wanted(text: str = "Hello", candidates: int = 1, max_frames: int | None = None) -> VoiceDescription:
    return VoiceDescription("A low voice", text, "auto", None, candidates, 5, max_frames)


@dataclass
class Kept:
    """The arguments with which the library was called."""

    wavs: list[bytes]
    texts: list[str | None]


async def designer(monkeypatch: pytest.MonkeyPatch, directory: Path, decoder: Spoken) -> tuple[VoiceDesigner, Kept]:
    """A designer whose library accepts everything."""
    kept = Kept([], [])

    async def add(caller: Caller, name: str, audio: bytes, *, ref_text: str | None, **rest: object) -> None:
        kept.wavs.append(audio)
        kept.texts.append(ref_text)

    async def check_free(caller: Caller, name: str, *, overwrite: bool) -> None:
        pass

    voices, models = VoiceStoreArgs(url=str(directory)), await loaded(CARD)
    library = VoiceLibrary(None, models, voices, ReferenceAudioArgs())
    for name, stand_in in (("add", add), ("check_free", check_free)):
        monkeypatch.setattr(library, name, stand_in)
    return VoiceDesigner(streams(decoder.handle), library, models, voices), kept


def speaking(*candidates: tuple[bytes, FinishReason]) -> Spoken:
    """Return a decoder that speaks these candidates, whose seeds count up from 5."""

    return Spoken(lambda request: [AudioChunk(*candidates[(request.seed - 5) % len(candidates)])])


GOOD, OTHER = (to_pcm16(recording(name)[0]) for name in ("high", "low"))
SILENT = bytes(len(GOOD))


async def test_the_first_candidate_without_a_flaw_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = speaking((SILENT, "stop"), (GOOD, "length"), (OTHER, "stop"), (GOOD, "stop"))
    designing, kept = await designer(monkeypatch, tmp_path, spoken)
    _, candidates, chosen = await designing.design(EVERYONE, "warm", wanted(candidates=4), TERMS, overwrite=False)
    assert candidates.index(chosen) == 2
    assert "silent" in str(candidates[0].flaw)
    assert "cut off" in str(candidates[1].flaw)
    assert [wav[44:] for wav in kept.wavs] == [OTHER]
    assert kept.texts == ["Hello"]


async def test_nothing_is_stored_when_all_have_a_flaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    designing, kept = await designer(monkeypatch, tmp_path, speaking((SILENT, "stop"), (GOOD, "length")))
    with pytest.raises(InvalidRequest, match=r"cut off.*silent|silent.*cut off") as caught:
        await designing.design(EVERYONE, "warm", wanted(candidates=2), TERMS, overwrite=False)
    assert refusal_of(caught.value).status == 422
    assert kept.wavs == []


async def test_words_that_were_cut_off_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    designing, kept = await designer(monkeypatch, tmp_path, speaking((GOOD, "stop"), (OTHER, "length")))
    previews = await designing.preview(EVERYONE, wanted(candidates=2), TERMS)
    for preview in previews:
        await designing.keep_preview(EVERYONE, str(preview.preview_id), "warm", overwrite=True)
    assert kept.texts == ["Hello", None]
    with pytest.raises(NotFound):
        await designing.keep_preview(EVERYONE, str(previews[0].preview_id), "warm", overwrite=True)


async def test_a_design_is_no_longer_than_what_can_be_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = speaking((GOOD, "stop"))
    designing, _ = await designer(monkeypatch, tmp_path, spoken)
    await designing.preview(EVERYONE, wanted("Hello " * 400, max_frames=5000), TERMS)
    await designing.preview(EVERYONE, wanted("Hello " * 400), TERMS)
    assert [request.max_frames for _, request in spoken.requests] == [750, 750]


async def test_when_one_is_refused_the_others_are_stopped(tmp_path: Path) -> None:
    """The other candidates would speak for ever."""
    spoken = Spoken(lambda request: [InvalidRequest("no room")] if request.seed == 7 else None)
    voices, models = VoiceStoreArgs(url=str(tmp_path)), await loaded(CARD)
    designing = VoiceDesigner(
        streams(spoken.handle), VoiceLibrary(None, models, voices, ReferenceAudioArgs()), models, voices
    )
    with pytest.raises(InvalidRequest, match="no room"):
        await asyncio.wait_for(designing.preview(EVERYONE, wanted(candidates=4), TERMS), 60)
    assert [stream.cancelled for stream in spoken.streams] == [True] * 4


async def test_further_candidates_wait_until_a_place_is_free(tmp_path: Path) -> None:
    """They begin after the first one, and never go over the limit."""
    under_way: list[int] = []

    def spoken(request: SpeechRequest) -> list[AudioChunk]:
        under_way.append(line.in_use)
        return [AudioChunk(GOOD, "stop")]

    voices, models, admission = VoiceStoreArgs(url=str(tmp_path)), await loaded(CARD), Admission()
    line = admission._line(CARD.name)
    line.limit.limit, line.limit.growing_fast = 1.0, False
    library = VoiceLibrary(None, models, voices, ReferenceAudioArgs())
    designing = VoiceDesigner(SpeechStreams(Spoken(spoken).handle, admission, 5.0), library, models, voices)
    async with admission.place(CARD.name, TERMS):
        design = asyncio.create_task(designing.preview(EVERYONE, wanted(candidates=4), TERMS))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(line._waiting) == 1, "further candidates wait beside the first one"
        assert not under_way
    assert len(await design) == 4
    assert under_way == [1, 1, 1, 1]
