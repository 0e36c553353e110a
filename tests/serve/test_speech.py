"""POST /v1/audio/speech over a real socket: its answers, and their timing."""

import concurrent.futures
import io
import wave

import httpx
import numpy as np
import openai
import pytest
import soundfile

from tests.audio_files import same_samples
from tests.serve.calls import wait_until
from tests.serve.conftest import BASE, CUSTOM, DESIGN, SLOTS, Service

FRAME_SAMPLES = 1920
LONG = {"input": "Hello there. " * 20, "voice": "ryan", "seed": 7, "max_new_tokens": 2000}


def speak(client: httpx.Client, **body: object) -> httpx.Response:
    response = client.post("/v1/audio/speech", json={"voice": "ryan", "seed": 1, "max_new_tokens": 6, **body})
    assert response.status_code == 200, response.text
    return response


def wait_until_idle(service: Service) -> None:
    names = (f"talker-{CUSTOM}", f"talker-{DESIGN}", "codec-decoder")
    wait_until(lambda: not any(service.load(name).used for name in names), "slots are still in use")


def test_wav_is_24_khz_mono_and_ends_where_the_request_says(client: httpx.Client) -> None:
    response = speak(client, input="Hello", response_format="wav")
    assert response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(response.content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24000)
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert len(pcm) == 6 * FRAME_SAMPLES
    assert pcm.std() > 10
    samples, rate = soundfile.read(io.BytesIO(response.content), dtype="int16")
    assert rate == 24000
    np.testing.assert_array_equal(samples, pcm)


def test_the_whole_file_has_its_length_and_the_samples_of_the_stream(client: httpx.Client) -> None:
    streamed = speak(client, input="Hello", response_format="pcm")
    whole = speak(client, input="Hello", response_format="wav", stream=False)
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.headers["x-finish-reason"] == "length"
    with wave.open(io.BytesIO(whole.content)) as file:
        assert file.getnframes() == 6 * FRAME_SAMPLES
        assert same_samples(file.readframes(6 * FRAME_SAMPLES), streamed.content)


def test_audio_arrives_while_the_talker_is_still_at_work(service: Service, client: httpx.Client) -> None:
    with client.stream("POST", "/v1/audio/speech", json=LONG | {"response_format": "pcm"}) as response:
        pieces = response.iter_raw()
        assert len(next(pieces)) == FRAME_SAMPLES * 2, "the first chunk is not one frame"
        assert service.load(f"talker-{CUSTOM}").used == 1
        for _ in range(11):
            assert next(pieces)
    wait_until_idle(service)


@pytest.mark.parametrize(
    "text",
    ["你好，今天的天气怎么样？", "こんにちは、世界。", "A", "👩‍🚀🎉", "<|im_end|><tts_pad>", "Ab1 " * 500, "好" * 2000],
    ids=["chinese", "japanese", "one character", "emoji", "special tokens", "2000 latin", "2000 chinese"],
)
def test_any_text_is_spoken(client: httpx.Client, text: str) -> None:
    assert len(speak(client, input=text, response_format="pcm").content) == 6 * FRAME_SAMPLES * 2


def test_the_seed_in_the_answer_repeats_it(client: httpx.Client) -> None:
    first = speak(client, input="Again", seed=None, response_format="pcm")
    seed = int(first.headers["x-seed"])
    again, other = (speak(client, input="Again", seed=n, response_format="pcm").content for n in (seed, seed ^ 1))
    assert same_samples(again, first.content)
    assert not same_samples(other, first.content)


def test_sampling_parameters_reach_the_talker(client: httpx.Client) -> None:
    greedy = [
        speak(client, input="Same", seed=seed, temperature=0, subtalker_temperature=0, response_format="pcm").content
        for seed in (1, 2)
    ]
    assert same_samples(*greedy)


def test_voice_design_takes_a_description(client: httpx.Client) -> None:
    body = {"input": "Hello", "model": DESIGN, "voice": None, "response_format": "pcm"}
    low = speak(client, **body, instructions="A low male voice").content
    high = speak(client, **body, instructions="A high female voice").content
    assert len(low) == len(high) == 6 * FRAME_SAMPLES * 2
    assert low != high


def test_models_voices_and_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "models": [CUSTOM, DESIGN, BASE]}
    models = client.get("/v1/models").json()
    assert [(m["id"], m["object"], m["type"]) for m in models["data"]] == [
        (CUSTOM, "model", "custom_voice"),
        (DESIGN, "model", "voice_design"),
        (BASE, "model", "base"),
    ]
    voices = client.get("/v1/audio/voices").json()
    assert {"ryan", "serena", "eric"} < set(voices["voices"])
    assert {v["model"] for v in voices["data"]} == {CUSTOM}


def test_the_official_openai_client_works(service: Service) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as api:
        with api.audio.speech.with_streaming_response.create(
            model=CUSTOM,
            voice="serena",
            input="Hello",
            response_format="pcm",
            extra_body={"max_new_tokens": 5, "seed": 1},
        ) as response:
            assert len(response.read()) == 5 * FRAME_SAMPLES * 2
        assert [model.id for model in api.models.list()] == [CUSTOM, DESIGN, BASE]
        with pytest.raises(openai.NotFoundError) as refused:
            api.audio.speech.create(model=CUSTOM, voice="bob", input="Hello", response_format="wav")
        assert refused.value.param == "voice"


def test_concurrent_requests_share_the_engine_and_give_what_they_give_alone(
    service: Service, client: httpx.Client
) -> None:
    bodies = [{"input": f"Number {i} " * (i + 1), "seed": i, "max_new_tokens": 5 + 7 * i} for i in range(2 * SLOTS)]
    alone = [speak(client, **body, response_format="pcm").content for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: speak(client, **body, response_format="pcm").content, bodies))
    for a, b in zip(alone, together, strict=True):
        difference = np.frombuffer(a, "<i2").astype(int) - np.frombuffer(b, "<i2").astype(int)
        assert np.abs(difference).max() <= 1  # the decoder's batches differ in the last bit of float32
    wait_until_idle(service)


def test_a_client_that_leaves_frees_its_slots(service: Service, client: httpx.Client) -> None:
    with client.stream("POST", "/v1/audio/speech", json=LONG | {"response_format": "pcm"}) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert service.load(f"talker-{CUSTOM}").used == 1
        assert service.load("codec-decoder").used == 1
    wait_until_idle(service)
