"""The official OpenAI client, unmodified except for its base URL."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.audio_files import same_samples
from tests.recordings import wav
from tests.serve.calls import FRAME_BYTES, fault, stored, upload, wait_until
from tests.serve.conftest import BASE, CUSTOM, DESIGN, Service

SHORT = {"max_new_tokens": 5, "seed": 1}
LONG_TEXT, LONG = "Hello there. " * 20, {"max_new_tokens": 2000, "seed": 7}


@pytest.fixture
def api(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as api:
        yield api


@pytest.fixture
async def async_api(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as api:
        yield api


def say(api: openai.OpenAI, text: str = "Hello", voice: Any = "ryan", **extra: object) -> bytes:
    answer = api.audio.speech.create(
        model="gpt-4o-mini-tts", voice=voice, input=text, response_format="pcm", extra_body=SHORT | extra
    )
    return answer.read()


def events(lines: Iterator[str]) -> list[dict[str, Any]]:
    found = [line for line in lines if line]
    assert all(line.startswith("data: ") for line in found)
    return [json.loads(line.removeprefix("data: ")) for line in found]


def audio_of(found: list[dict[str, Any]]) -> bytes:
    assert {event["type"] for event in found[:-1]} == {"speech.audio.delta"}
    return b"".join(base64.b64decode(event["audio"]) for event in found[:-1])


def wait_until_idle(service: Service) -> None:
    names = (f"talker-{CUSTOM}", "codec-decoder")
    wait_until(lambda: not any(service.load(name).used for name in names), "slots are still in use")


def test_two_utterances_on_one_client(api: openai.OpenAI) -> None:
    first, second = say(api, "Hello"), say(api, "Good bye", voice={"id": "serena"})
    assert len(first) == len(second) == 5 * FRAME_BYTES
    assert not same_samples(first, second)
    assert same_samples(say(api, "Hello"), first)


async def test_async_and_streaming(async_api: openai.AsyncOpenAI, api: openai.OpenAI) -> None:
    whole = await async_api.audio.speech.create(
        model="tts-1", voice="ryan", input="Hello", response_format="pcm", extra_body=SHORT
    )
    async with async_api.audio.speech.with_streaming_response.create(
        model="tts-1", voice="ryan", input="Hello", response_format="pcm", stream_format="audio", extra_body=SHORT
    ) as streamed:
        pieces = [piece async for piece in streamed.iter_bytes()]
    assert len(pieces) > 1
    assert same_samples(b"".join(pieces), whole.content)
    assert same_samples(whole.content, say(api))


def test_events(api: openai.OpenAI) -> None:
    with api.audio.speech.with_streaming_response.create(
        model="tts-1", voice="ryan", input="Hello", response_format="pcm", stream_format="sse", extra_body=SHORT
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response.iter_lines())
    assert same_samples(audio_of(found), say(api))
    assert {event["response_format"] for event in found[:-1]} == {"pcm"}
    usage = found[-1]["usage"]
    segments = [{"text": "Hello", "start_ms": 0, "end_ms": 400}]
    done = {"type": "speech.audio.done", "usage": usage, "finish_reason": "length", "segments": segments}
    assert found[-1] == done
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] == 5
    assert usage["total_tokens"] == usage["input_tokens"] + 5


async def test_events_of_the_async_client_are_a_file(async_api: openai.AsyncOpenAI) -> None:
    async with async_api.audio.speech.with_streaming_response.create(
        model=CUSTOM, voice="ryan", input="Hello", response_format="wav", stream_format="sse", extra_body=SHORT
    ) as response:
        found = events(iter([line async for line in response.iter_lines()]))
    file = audio_of(found)
    assert file.startswith(b"RIFF")
    assert len(file) == 44 + 5 * FRAME_BYTES


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_leaving_in_the_middle_frees_the_slots(api: openai.OpenAI, service: Service, stream_format: Any) -> None:
    with api.audio.speech.with_streaming_response.create(
        model="tts-1", voice="ryan", input=LONG_TEXT, response_format="pcm", stream_format=stream_format,
        extra_body=LONG,
    ) as response:  # fmt: skip
        pieces = response.iter_bytes()
        next(pieces)
        assert service.load(f"talker-{CUSTOM}").used == 1
    wait_until_idle(service)
    assert len(say(api)) == 5 * FRAME_BYTES


@pytest.mark.parametrize(
    ("fields", "kind", "param", "word"),
    [
        ({"input": ""}, openai.BadRequestError, "input", "empty"),
        ({"input": "a" * 40_001}, openai.BadRequestError, "input", "40000"),
        ({"voice": "nova"}, openai.NotFoundError, "voice", "ryan"),
        ({"voice": {"id": "voice_1"}}, openai.NotFoundError, "voice", "ryan"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model", CUSTOM),
        ({"stream_format": "ogg"}, openai.BadRequestError, "stream_format", "sse"),
        ({"stream_format": "sse", "extra_body": {"stream": False}}, openai.BadRequestError, "stream", "omit"),
        ({"stream_format": "sse", "extra_body": {"temperature": 9}}, openai.BadRequestError, "temperature", "2"),
        ({"extra_body": {"inptu": 1}}, openai.BadRequestError, "inptu", "unknown"),
    ],
)
def test_bad_input(
    api: openai.OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], param: str, word: str
) -> None:
    body: dict[str, Any] = {"model": "tts-1", "voice": "ryan", "input": "Hello", "response_format": "pcm"}
    with pytest.raises(kind) as refused:
        api.audio.speech.create(**(body | fields))
    assert refused.value.param == param
    assert word in refused.value.message
    assert say(api)


def test_models(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == [CUSTOM, DESIGN, BASE]
    assert api.models.retrieve(BASE).owned_by == "qwen-tts"
    with pytest.raises(openai.NotFoundError) as refused:
        api.models.retrieve("gpt/5")
    assert "gpt/5" in refused.value.message


def test_an_alias_is_the_voice_it_stands_for(api: openai.OpenAI, client: httpx.Client) -> None:
    heard = say(api, voice="ryan")
    assert same_samples(say(api, voice="alloy"), heard)
    assert same_samples(say(api, voice="Alloy"), heard)
    assert "alloy" in client.get("/v1/audio/voices").json()["voices"]
    assert "ryan" in fault(upload(client, "Alloy"), 400, "name")["message"]


@pytest.mark.usefixtures("empty_library")
def test_consents_and_the_voice_that_names_one(api: openai.OpenAI, client: httpx.Client) -> None:
    consents = api.audio.voice_consents
    made = [
        consents.create(name=f"Anna {n}", language="en-US", recording=("a.wav", wav(), "audio/wav")) for n in range(3)
    ]
    try:
        assert {made[0].object, made[0].language} == {"audio.voice_consent", "en-US"}
        assert [one.id for one in consents.list(limit=2)] == sorted((one.id for one in made), reverse=True)
        page = client.get("/v1/audio/voice_consents", params={"limit": 2}).json()
        assert (page["first_id"], page["last_id"], page["has_more"]) == (*(one["id"] for one in page["data"]), True)
        assert consents.update(made[0].id, name="Anna").name == "Anna"
        assert consents.retrieve(made[0].id).name == "Anna"

        sample = ("a.wav", wav(), "audio/wav")
        voice = api.audio.voices.create(name="anna", audio_sample=sample, consent=made[0].id)
        assert (voice.id, voice.type) == ("anna", "audio_sample")
        assert len(say(api, voice={"id": voice.id})) == 5 * FRAME_BYTES
        assert client.get("/v1/audio/voices/anna").json()["consent"] == made[0].id
        with pytest.raises(openai.NotFoundError) as refused:
            api.audio.voices.create(name="other", audio_sample=sample, consent="cons_1")
        assert refused.value.param == "consent"
        assert stored(client) == ["anna"]
        assert api.audio.voices.delete("anna").deleted
    finally:
        assert all(consents.delete(one.id).deleted for one in made)
    with pytest.raises(openai.NotFoundError):
        consents.retrieve(made[0].id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"language": ""}, "language"),
        ({"recording": b"no sound"}, "recording"),
        ({"recording": b""}, "recording"),
        ({"recording": wav(seconds=0.5)}, "recording"),
    ],
)
def test_bad_consents_leave_nothing(api: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    body: dict[str, Any] = {"name": "Anna", "language": "en", "recording": wav()}
    with pytest.raises(openai.BadRequestError) as refused:
        api.audio.voice_consents.create(**(body | fields))
    assert refused.value.param == param
    assert list(api.audio.voice_consents.list()) == []


def test_bad_pages(client: httpx.Client) -> None:
    for limit in ("0", "101", "x"):
        fault(client.get("/v1/audio/voice_consents", params={"limit": limit}), 400, "limit")
    assert client.get("/v1/audio/voice_consents", params={"after": "../x"}).json()["data"] == []
