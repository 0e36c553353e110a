"""Candidates of a design: which is stored, and that they succeed or fail together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.access.caller import EVERYONE, Caller
from deployments.errors import HttpError
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech import design as voice_design
from deployments.speech.design import VoiceDesigner
from deployments.speech.utterance import DesignBody
from deployments.voices.library import VoiceLibrary
from deployments.voices.previews import PreviewNotFound
from deployments.wire.messages import AudioChunk, ModelCard
from qwen_tts.audio import to_pcm16
from qwen_tts.config import GenerationDefaults
from qwen_tts.errors import Overloaded
from qwen_tts.request import FinishReason, SpeechRequest
from tests.recordings import recording

CARDS = {"design": ModelCard("design", "voice_design", (), ("english",), GenerationDefaults(), 24000)}


class Stream:
    """What a decoder's stream is to its holder: speaks for ever, or is refused."""

    def __init__(self, refused: bool) -> None:
        self._refused = refused
        self.cancelled = False

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> AudioChunk:
        await asyncio.sleep(0.001)
        if self._refused:
            raise Overloaded("no room")
        return AudioChunk(b"\0\0", None)

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Kept:
    """What the library was asked to store."""

    wavs: list[bytes]
    texts: list[str | None]


def designer(
    monkeypatch: pytest.MonkeyPatch, directory: Path, spoken: Sequence[tuple[bytes, FinishReason]]
) -> tuple[VoiceDesigner, Kept]:
    """One whose model speaks these in turn, and whose library takes everything."""
    remaining, kept = iter(spoken), Kept([], [])

    async def collect(chunks: object) -> tuple[bytes, AudioChunk]:
        pcm, finish_reason = next(remaining)
        return pcm, AudioChunk(b"", finish_reason)

    async def add(
        caller: Caller, name: str, audio: bytes, cards: object, *, ref_text: str | None, **rest: object
    ) -> None:
        kept.wavs.append(audio)
        kept.texts.append(ref_text)

    async def check_free(caller: Caller, name: str, cards: object, *, overwrite: bool) -> None:
        pass

    voices = VoiceStoreArgs(url=str(directory))
    library = VoiceLibrary(None, voices, ReferenceAudioArgs())
    for name, stand_in in (("add", add), ("check_free", check_free)):
        monkeypatch.setattr(library, name, stand_in)
    monkeypatch.setattr(voice_design, "open_stream", lambda *args: None)
    monkeypatch.setattr(voice_design, "collect", collect)
    decoder: Any = None
    return VoiceDesigner(decoder, library, voices), kept


GOOD, OTHER = (to_pcm16(recording(name)[0]) for name in ("high", "low"))
SILENT = bytes(len(GOOD))


async def test_the_first_candidate_without_a_flaw_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[tuple[bytes, FinishReason]] = [(SILENT, "stop"), (GOOD, "length"), (OTHER, "stop"), (GOOD, "stop")]
    designing, kept = designer(monkeypatch, tmp_path, spoken)
    body = DesignBody(description="A low voice", input="Hello", candidates=4, seed=5)
    _, shown = await designing.design(EVERYONE, "warm", body, CARDS)
    assert [candidate.chosen for candidate in shown] == [False, False, True, False]
    assert "silent" in str(shown[0].flaw)
    assert "cut off" in str(shown[1].flaw)
    assert [wav[44:] for wav in kept.wavs] == [OTHER]
    assert kept.texts == ["Hello"]


async def test_nothing_is_stored_when_all_have_a_flaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    designing, kept = designer(monkeypatch, tmp_path, [(SILENT, "stop"), (GOOD, "length")])
    body = DesignBody(description="A low voice", input="Hello", candidates=2)
    with pytest.raises(HttpError, match=r"silent.*cut off") as caught:
        await designing.design(EVERYONE, "warm", body, CARDS)
    assert caught.value.status == 422
    assert kept.wavs == []


async def test_words_that_were_cut_off_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    designing, kept = designer(monkeypatch, tmp_path, [(GOOD, "stop"), (OTHER, "length")])
    body = DesignBody(description="A low voice", input="Hello", candidates=2)
    previews = await designing.preview(EVERYONE, body, CARDS)
    for preview in previews:
        await designing.keep_preview(EVERYONE, str(preview.id), "warm", CARDS, overwrite=True)
    assert kept.texts == ["Hello", None]
    with pytest.raises(PreviewNotFound):
        await designing.keep_preview(EVERYONE, str(previews[0].id), "warm", CARDS, overwrite=True)


async def test_a_design_is_no_longer_than_what_can_be_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    designing, _ = designer(monkeypatch, tmp_path, [(GOOD, "stop")] * 2)
    orders: list[SpeechRequest] = []
    monkeypatch.setattr(voice_design, "open_stream", lambda handle, method, model, order: orders.append(order))
    await designing.preview(EVERYONE, DesignBody(description="A", input="Hello " * 400, max_new_tokens=5000), CARDS)
    await designing.preview(EVERYONE, DesignBody(description="A", input="Hello " * 400), CARDS)
    assert [order.max_frames for order in orders] == [750, 750]


async def test_when_one_is_refused_the_others_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[Stream] = []

    def open_stream(handle: object, method: str, model: str, order: SpeechRequest) -> Any:
        streams.append(Stream(refused=order.seed == 7))
        return streams[-1]

    monkeypatch.setattr(voice_design, "open_stream", open_stream)
    voices = VoiceStoreArgs(url=str(tmp_path))
    decoder: Any = None
    designer = VoiceDesigner(decoder, VoiceLibrary(None, voices, ReferenceAudioArgs()), voices)
    body = DesignBody(description="A low voice", input="Hello", candidates=4, seed=5)
    with pytest.raises(Overloaded, match="no room"):
        await asyncio.wait_for(designer.preview(EVERYONE, body, CARDS), 10)
    assert [stream.cancelled for stream in streams] == [True] * 4
