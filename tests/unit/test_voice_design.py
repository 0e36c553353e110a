"""Candidates of one design succeed or fail together."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deployments import voice_design
from deployments.messages import AudioChunk, ModelCard
from deployments.schemas import DesignBody
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.voice_design import VoiceDesigner
from deployments.voice_library import VoiceLibrary
from qwen_tts.config import GenerationDefaults
from qwen_tts.errors import Overloaded
from qwen_tts.request import SpeechRequest

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
        await asyncio.wait_for(designer.preview(body, CARDS), 10)
    assert [stream.cancelled for stream in streams] == [True] * 4
