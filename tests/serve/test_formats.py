"""Formats, rates and speed of POST /v1/audio/speech, whole and streamed."""

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.audio_files import decoded, same_samples
from tests.serve.calls import fault
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_speech import LONG, speak, wait_until_idle

FRAMES = 12
SECONDS = FRAMES * 0.08
# format: content type, and the default rate
FORMATS = {
    "mp3": ("audio/mpeg", 24000),
    "opus": ("audio/ogg", 24000),
    "aac": ("audio/aac", 24000),
    "flac": ("audio/flac", 24000),
    "wav": ("audio/wav", 24000),
    "pcm": ("audio/pcm", 24000),
    "mulaw": ("audio/basic", 8000),
    "alaw": ("audio/x-alaw-basic", 8000),
}


@pytest.mark.parametrize("sample_rate", [None, 48000])
@pytest.mark.parametrize("name", FORMATS)
def test_whole_and_streamed_hold_the_same_samples(client: httpx.Client, name: str, sample_rate: int | None) -> None:
    media_type, default_hz = FORMATS[name]
    fields = {"input": "Hello", "max_new_tokens": FRAMES, "response_format": name, "sample_rate": sample_rate}
    answers = [speak(client, **fields, stream=stream) for stream in (True, False)]
    streamed, whole = (decoded(answer.content, name, sample_rate or default_hz) for answer in answers)
    for answer in answers:
        assert answer.headers["content-type"] == media_type
        assert answer.headers["x-sample-rate"] == str(sample_rate or default_hz)
        assert {"x-model", "x-seed"} <= answer.headers.keys()
    # Equal samples are encoded equally (tests/deployments/audio/test_encoder.py); these samples differ by rounding.
    assert len(streamed.samples) == len(whole.samples)
    if name == "aac":  # it preserves the level of noise, not its waves
        np.testing.assert_allclose(levels(streamed.samples), levels(whole.samples), rtol=0.2)
    else:  # unrelated or shifted noise differs by 1.4 times its own level
        most = {"mp3": 0.1, "opus": 0.3}.get(name, 0.01)
        difference = streamed.samples.astype(np.int32) - whole.samples
        assert np.abs(difference).mean() < most * np.abs(whole.samples).mean()
    assert streamed.channels == 1
    assert 0 <= streamed.seconds - SECONDS <= 0.0801
    assert "content-length" not in answers[0].headers
    assert answers[1].headers["x-finish-reason"] == "length"


def levels(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the level of every 80 ms."""
    pieces = np.array_split(samples.astype(np.float64), FRAMES)
    return np.array([np.sqrt(np.mean(piece**2)) for piece in pieces])


def test_speed(client: httpx.Client) -> None:
    fields = {"input": "Hello", "max_new_tokens": FRAMES, "response_format": "pcm"}
    for speed in (0.5, 2):
        for stream in (True, False):
            pcm = speak(client, **fields, speed=speed, stream=stream).content
            assert len(pcm) / 48000 == pytest.approx(SECONDS / speed, abs=0.08)
    assert same_samples(speak(client, **fields, speed=1).content, speak(client, **fields).content)


def test_a_refused_request_is_refused_in_every_format(client: httpx.Client) -> None:
    for stream in (True, False):
        body = {"input": "Hello", "voice": "bob", "response_format": "opus", "stream": stream}
        fault(client.post("/v1/audio/speech", json=body), 404, "voice")


def test_a_client_that_leaves_an_encoded_stream_frees_its_slots(service: Service, client: httpx.Client) -> None:
    for name in ("mp3", "flac"):
        with client.stream("POST", "/v1/audio/speech", json=LONG | {"response_format": name}) as response:
            pieces = response.iter_raw()
            next(pieces)
            assert service.load(f"talker-{CUSTOM}").used == 1
        wait_until_idle(service)


def test_the_openai_client_gets_mp3_when_it_asks_for_nothing(service: Service) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as api:
        answer = api.audio.speech.create(
            model=CUSTOM, voice="serena", input="Hello", speed=1.5, extra_body={"max_new_tokens": FRAMES, "seed": 1}
        )
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert decoded(answer.content, "mp3", 24000).seconds == pytest.approx(SECONDS / 1.5, abs=0.12)
