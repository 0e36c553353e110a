"""The official ElevenLabs client, unmodified except for its base URL."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from elevenlabs import AsyncElevenLabs, ElevenLabs, VoiceSettings
from elevenlabs.core.api_error import ApiError

from tests.audio_files import same_samples
from tests.serve.calls import FRAME_BYTES, PATIENCE_S, upload
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_dashscope_client import LONG, differences, said
from tests.serve.test_openai_client import wait_until_idle
from tests.serve.tls import encrypted

# A warning of the client's own code.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed.code is deprecated:DeprecationWarning")

FEW: Any = {"additional_body_parameters": {"max_new_tokens": 5}}
MODEL = "eleven_multilingual_v2"


@pytest.fixture
def api(service: Service) -> Iterator[ElevenLabs]:
    with httpx.Client(timeout=PATIENCE_S) as connections:  # the ElevenLabs client does not close it
        yield ElevenLabs(base_url=service.url, api_key="unused", httpx_client=connections)


@pytest.fixture
async def async_api(service: Service) -> AsyncIterator[AsyncElevenLabs]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as connections:
        yield AsyncElevenLabs(base_url=service.url, api_key="unused", httpx_client=connections)


@pytest.fixture(scope="module")
def tls(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    authority = tmp_path_factory.mktemp("tls") / "authority.pem"
    with encrypted(int(service.url.rpartition(":")[2]), authority) as address:
        yield f"https://{address}", authority


@pytest.fixture
def realtime(tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> ElevenLabs:
    """The client, which opens encrypted sockets only."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    return ElevenLabs(base_url=tls[0], api_key="unused")


def test_convert(api: ElevenLabs, client: httpx.Client) -> None:
    pcm = b"".join(
        api.text_to_speech.convert(
            "ryan",
            text="Hello",
            model_id=MODEL,
            output_format="pcm_24000",
            seed=1,
            language_code="en",
            apply_text_normalization="auto",
            enable_logging=False,
            voice_settings=VoiceSettings(stability=0.5, similarity_boost=0.75, style=0.0, use_speaker_boost=True),
            request_options=FEW,
        )
    )
    assert same_samples(pcm, said(client, "Hello", language="english"))
    settings = VoiceSettings(speed=0.5)
    speech = api.text_to_speech.convert("Alloy", text="Hello", voice_settings=settings, request_options=FEW)
    samples, rate_hz = soundfile.read(io.BytesIO(b"".join(speech)))  # MP3 is the default
    assert rate_hz == 44100
    assert len(samples) / rate_hz == pytest.approx(2 * 5 * 0.08, abs=0.15)


async def test_stream(async_api: AsyncElevenLabs, client: httpx.Client) -> None:
    speech = async_api.text_to_speech.stream(
        "ryan", text="Hello", model_id=CUSTOM, output_format="pcm_24000", seed=1, request_options=FEW
    )
    assert differences(b"".join([piece async for piece in speech]), said(client, "Hello")) <= 1
    telephone = async_api.text_to_speech.stream("ryan", text="Hello", output_format="ulaw_8000", request_options=FEW)
    assert len(b"".join([piece async for piece in telephone])) == 5 * FRAME_BYTES // 2 // 3


def test_leaving_a_stream_frees_its_slots(api: ElevenLabs, service: Service) -> None:
    options: Any = {"additional_body_parameters": {"max_new_tokens": 3000}}
    speech = api.text_to_speech.stream("ryan", text=LONG, output_format="pcm_24000", request_options=options)
    next(speech)
    assert service.load(f"talker-{CUSTOM}").used == 1
    speech.close()  # type: ignore[attr-defined]  # a generator behind its public type
    wait_until_idle(service)


def test_voices(api: ElevenLabs, client: httpx.Client, empty_library: None) -> None:
    upload(client, "anna", speaker_description="warm")
    voices = {voice.voice_id: voice for voice in api.voices.get_all().voices}
    assert voices["ryan"].category == "premade"
    assert (voices["anna"].name, voices["anna"].category, voices["anna"].description) == ("anna", "cloned", "warm")


@pytest.mark.parametrize(
    ("voice", "fields", "code", "status", "word"),
    [
        ("nobody", {}, 404, "voice_not_found", "ryan"),
        ("ryan", {"text": " "}, 400, "empty_input", "text"),
        ("ryan", {"text": "a" * 40_001}, 400, "max_character_limit_exceeded", "text has 40001"),
        ("ryan", {"model_id": "gpt"}, 404, "model_not_found", CUSTOM),
        ("ryan", {"language_code": "xx"}, 400, "unsupported_language", "de"),
        ("ryan", {"output_format": "mp3_1"}, 400, "invalid_output_format", "mp3_44100_128"),
        ("ryan", {"previous_text": "Before."}, 400, "invalid_value", "previous_text"),
        ("ryan", {"apply_text_normalization": "on"}, 400, "invalid_value", "apply_text_normalization"),
        ("ryan", {"voice_settings": VoiceSettings(speed=9)}, 400, "out_of_range", "voice_settings.speed is 9"),
        ("ryan", {"voice_settings": {"pitch": 2}}, 400, "unknown_field", "stability"),
        ("ryan", {"seed": -1}, 400, "out_of_range", "seed"),
    ],
)
def test_bad_input(api: ElevenLabs, voice: str, fields: Any, code: int, status: str, word: str) -> None:
    with pytest.raises(ApiError) as refused:
        list(api.text_to_speech.convert(voice, **{"text": "Hello", "request_options": FEW} | fields))
    assert refused.value.status_code == code
    assert refused.value.body["detail"]["status"] == status, refused.value.body
    assert word in refused.value.body["detail"]["message"]


def test_realtime(realtime: ElevenLabs, client: httpx.Client) -> None:
    settings = VoiceSettings(stability=0.5, similarity_boost=0.75, speed=1.0)
    speech = realtime.text_to_speech.convert_realtime(
        "ryan", text=iter(["One", " two. "]), model_id=MODEL, output_format="pcm_24000", voice_settings=settings
    )
    pcm = b"".join(speech)
    assert len(pcm) >= 5 * FRAME_BYTES
    assert len(pcm) % FRAME_BYTES == 0


def test_leaving_realtime_frees_its_slots(realtime: ElevenLabs, service: Service) -> None:
    words = iter([f"{word} " for word in LONG.split()] * 4)
    speech = realtime.text_to_speech.convert_realtime("ryan", text=words, output_format="pcm_24000")
    next(iter(speech))
    speech.close()  # type: ignore[attr-defined]  # a generator behind its public type
    wait_until_idle(service)


def test_realtime_is_refused_with_the_reason(realtime: ElevenLabs) -> None:
    with pytest.raises(ApiError) as refused:
        list(realtime.text_to_speech.convert_realtime("nobody", text=iter(["Hello "]), output_format="pcm_24000"))
    assert refused.value.status_code == 1008
    assert refused.value.body["error"] == "voice_not_found"
    assert "ryan" in refused.value.body["message"]
