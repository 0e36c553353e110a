"""Requests that no model of an application can serve. (All routes: tests/serve/test_voices.py.)"""

from pathlib import Path

import pytest

from deployments.access.caller import EVERYONE
from deployments.errors import refusal_of
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.fields import SpeechFields
from deployments.speech.voice_choice import VoiceChoice
from deployments.voices.library import VoiceLibrary
from deployments.voices.store import VoiceStore
from deployments.wire.messages import ModelCard
from qwen_tts.config import GenerationDefaults, ModelType
from qwen_tts.errors import InvalidRequest
from tests.deployments.loaded import loaded


def card(kind: ModelType) -> ModelCard:
    speakers = ("Ryan", "Vivian") if kind == "custom_voice" else ()
    return ModelCard(f"my-{kind}", kind, speakers, ("english",), GenerationDefaults(), 24000, 300)


@pytest.fixture
def voices(tmp_path: Path) -> VoiceStoreArgs:
    """A library with one voice, stored when a model for it was still loaded."""
    VoiceStore(str(tmp_path), cache_bytes=0).add(
        "anna", audio=b"", mime_type="audio/wav", consent="given", ref_text=None, description=None, source="upload",
        prompts={}, overwrite=False,
    )  # fmt: skip
    return VoiceStoreArgs(url=str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "body", "status", "needed"),
    [
        ("custom_voice", {"ref_audio": "AAAA", "ref_text": "a"}, 400, "base"),
        ("custom_voice", {"speaker_embedding": [0.5]}, 400, "base"),
        ("custom_voice", {"voice": "anna"}, 400, "base"),
        ("custom_voice", {"instructions": "A low voice"}, 400, "voice_design"),
        ("base", {"instructions": "A low voice", "model": "auto"}, 400, "voice_design"),
        ("base", {"voice": "ryan"}, 404, "custom_voice"),
        ("voice_design", {"voice": "ryan", "model": "tts-1"}, 404, "custom_voice"),
        ("voice_design", {"voice": "bob"}, 404, "base"),
        ("voice_design", {"voice": "anna"}, 400, "base"),
        ("voice_design", {"ref_audio": "AAAA", "x_vector_only_mode": True}, 400, "base"),
    ],
)
async def test_the_type_that_would_be_needed_is_named(
    voices: VoiceStoreArgs, kind: ModelType, body: dict[str, object], status: int, needed: str
) -> None:
    models = await loaded(card(kind))
    library = VoiceLibrary(None, models, voices, ReferenceAudioArgs())
    library._fingerprints = {"my-base": "ab12"}
    with pytest.raises(InvalidRequest) as caught:
        await VoiceChoice(models, library).choose(EVERYONE, SpeechFields.model_validate(body))
    answer = refusal_of(caught.value)
    assert answer.status == status
    assert f"a model of type '{needed}', and none is loaded" in answer.message
    if status == 400:
        assert f"my-{kind}" in answer.message, "the message does not name the loaded model"


async def test_the_first_of_several_models_speaks() -> None:
    first, second = card("base"), ModelCard("other", "base", (), ("english",), GenerationDefaults(), 24000, 300)
    assert (await loaded(card("custom_voice"), first, second)).first("base") is first
