"""A person's voice by HTTP: uploaded in several formats, listed, spoken, deleted."""

import httpx
import numpy as np
import openai
import pytest

from qwen_tts.audio import Clip
from tests.human_speech import Reading, readings
from tests.recordings import FILES, encode
from tests.serve.calls import FRAME_BYTES, speak
from tests.serve.conftest import Service

SENT = ("wav 8 kHz", "wav 16 kHz", "wav 48 kHz stereo", "mp3", "ogg opus", "ogg vorbis")


@pytest.fixture(scope="module")
def people() -> list[Reading]:
    return readings()


def converted(reading: Reading, case: str) -> bytes:
    container, codec, rate_hz, channels = FILES[case]
    samples = Clip(reading.samples, reading.rate_hz).resampled(rate_hz).samples
    return encode(samples.astype(np.float32), rate_hz, container, codec, channels)


@pytest.mark.parametrize("case", SENT)
def test_uploaded_listed_speaking_deleted(client: httpx.Client, people: list[Reading], case: str) -> None:
    for number, reading in enumerate(people):
        name = f"reader-{number}"
        fields = {"name": name, "consent": "public domain", "ref_text": reading.words}
        file = converted(reading, case)
        answer = client.post("/v1/audio/voices", data=fields, files={"audio_sample": ("reading", file)})
        assert answer.status_code == 200, answer.text[:500]
        assert name in client.get("/v1/audio/voices").json()["voices"]
        assert client.get(f"/v1/audio/voices/{name}/audio").content == file
        speak(client, voice=name)
    for number in range(len(people)):
        assert client.delete(f"/v1/audio/voices/reader-{number}").status_code == 200
    assert client.get("/v1/audio/voices").json()["uploaded_voices"] == []
    assert client.post("/v1/audio/speech", json={"input": "Hello", "voice": "reader-0"}).status_code == 404


def test_the_official_openai_client(service: Service, people: list[Reading]) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as api:
        voice = api.audio.voices.create(
            name="reader", audio_sample=("reading.wav", people[0].wav, "audio/wav"), consent="public domain"
        )
        spoken = api.audio.speech.create(
            model="tts-1",
            voice={"id": voice.id},
            input="Good morning.",
            response_format="pcm",
            extra_body={"max_new_tokens": 6, "seed": 1},
        )
        assert len(spoken.content) == 6 * FRAME_BYTES
    with service.client() as client:
        assert client.delete("/v1/audio/voices/reader").status_code == 200
