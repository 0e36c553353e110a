"""ElevenLabs' fields under this service's names."""

import pytest

from deployments.errors import refusal_of
from deployments.protocols.elevenlabs.fields import SpokenFields, VoiceSettings, speech_fields
from qwen_tts.errors import InvalidRequest


def test_fields_get_the_names_of_this_service() -> None:
    spoken = SpokenFields(voice_settings=VoiceSettings(speed=1.2), seed=3)
    fields = speech_fields(spoken, voice_id="ryan", model_id=None, language_code="de", output_format="mp3_22050_32")
    assert (fields.voice, fields.language, fields.response_format) == ("ryan", "german", "mp3")
    assert (fields.sample_rate, fields.speed, fields.seed) == (22050, 1.2, 3)


def test_a_name_from_the_url_is_checked_like_one_from_a_body() -> None:
    with pytest.raises(InvalidRequest, match="voice_id: String should have at most 256 characters") as caught:
        speech_fields(SpokenFields(), voice_id="v" * 257, model_id=None, language_code=None, output_format="pcm_24000")
    assert (caught.value.param, refusal_of(caught.value).status) == ("voice_id", 400)
