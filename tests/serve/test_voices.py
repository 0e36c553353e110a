"""The voice library over a real socket: upload, list, speech, overwrite, delete, and refusals."""

import concurrent.futures
import socket
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.recordings import FILES, encode, recording, wav
from tests.serve.calls import FRAME_BYTES, PATIENCE_S, SHORT, fault, files, speak, stored, upload
from tests.serve.conftest import BASE, MAX_AUDIO_BYTES, MAX_BODY_BYTES, Service

pytestmark = pytest.mark.usefixtures("empty_library")


def test_a_voice_from_upload_to_deletion(client: httpx.Client) -> None:
    audio = wav()
    answer = upload(client, "Anna", audio, ref_text="The words of it.", speaker_description="a friend")
    assert answer.status_code == 200, answer.text
    voice = answer.json()
    assert (voice["object"], voice["id"], voice["name"], voice["success"]) == ("audio.voice", "Anna", "Anna", True)
    assert (voice["consent"], voice["ref_text"], voice["source"]) == ("given", "The words of it.", "upload")

    listed = client.get("/v1/audio/voices").json()
    assert "Anna" in listed["voices"]
    assert stored(client) == ["Anna"]
    assert client.get("/v1/audio/voices/anna").json()["speaker_description"] == "a friend"
    preview = client.get("/v1/audio/voices/ANNA/audio")
    assert (preview.content, preview.headers["content-type"]) == (audio, "audio/wav")

    said = speak(client, voice="Anna")
    assert said == speak(client, voice={"id": "anna"}, model=BASE)
    assert said != speak(client, voice="ryan")
    assert said != speak(client, voice="anna", non_streaming_mode=True)

    assert client.delete("/v1/audio/voices/Anna").json()["deleted"] is True
    for response in (
        client.get("/v1/audio/voices/anna"),
        client.get("/v1/audio/voices/anna/audio"),
        client.delete("/v1/audio/voices/anna"),
        client.post("/v1/audio/speech", json=SHORT | {"voice": "anna"}),
    ):
        assert "anna" in fault(response, 404, "voice")["message"]


@pytest.mark.parametrize("case", FILES)
def test_any_container_and_rate(client: httpx.Client, case: str) -> None:
    container, codec, rate_hz, channels = FILES[case]
    samples, clip_rate_hz = recording("high")
    at = np.linspace(0, len(samples) - 1, round(len(samples) * rate_hz / clip_rate_hz))
    audio = encode(
        np.interp(at, np.arange(len(samples)), samples).astype(np.float32), rate_hz, container, codec, channels
    )
    answer = upload(client, "anna", audio, ref_text="Words.")
    assert answer.status_code == 200, answer.text
    assert client.get("/v1/audio/voices/anna/audio").content == audio
    speak(client, voice="anna")


def test_the_official_openai_client_stores_a_voice(service: Service, client: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as api:
        voice = api.audio.voices.create(name="anna", audio_sample=("a.wav", wav(), "audio/wav"), consent="given")
        assert (voice.name, voice.object) == ("anna", "audio.voice")
        with api.audio.speech.with_streaming_response.create(
            model="tts-1",
            voice={"id": voice.id},
            input="Hello",
            response_format="pcm",
            extra_body={"max_new_tokens": 5, "seed": 1},
        ) as response:
            assert len(response.read()) == 5 * FRAME_BYTES
    assert client.get("/v1/audio/voices/anna").json()["consent"] == "given"


def test_an_upload_without_words_clones_the_sound_alone(client: httpx.Client) -> None:
    upload(client, "plain", wav())
    upload(client, "told", wav(), x_vector_only_mode="true")
    assert speak(client, voice="plain") == speak(client, voice="told")
    upload(client, "words", wav(), ref_text="Words.")
    assert speak(client, voice="words") != speak(client, voice="plain")


def test_a_name_is_taken_until_overwritten(client: httpx.Client) -> None:
    assert upload(client, "anna", wav("high")).status_code == 200
    said = speak(client, voice="anna")
    assert fault(upload(client, "ANNA", wav("low")), 409, "name")["code"] == "voice_exists"
    assert speak(client, voice="anna") == said
    assert upload(client, "anna", wav("low"), overwrite="true").status_code == 200
    assert speak(client, voice="anna") != said
    assert len(stored(client)) == 1


def test_two_uploads_of_one_name_at_once_leave_one_complete_voice(client: httpx.Client) -> None:
    audios = [wav("high"), wav("low")] * 4
    with concurrent.futures.ThreadPoolExecutor(len(audios)) as pool:
        answers = list(pool.map(lambda audio: upload(client, "anna", audio).status_code, audios))
    assert sorted(answers) == [200] + [409] * 7
    kept = client.get("/v1/audio/voices/anna/audio").content
    said = speak(client, voice="anna")
    assert upload(client, "twin", kept).status_code == 200
    assert speak(client, voice="twin") == said, "the recording and the prompt are of different uploads"


HOSTILE_NAMES = [
    "", " ", "..", "../x", "a/b", "a\\b", "a\0b", ".hidden", "x" * 65, "аnna", "ａｎｎａ",
    "anna\u202e", "an na", "preview_1",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(client: httpx.Client, voices: Path, name: str) -> None:
    fault(upload(client, name), 400, "name")
    assert files(voices) == []


def test_a_built_in_name_is_not_free(client: httpx.Client) -> None:
    assert "built-in" in fault(upload(client, "Ryan"), 400, "name")["message"]


HOSTILE_AUDIO = {
    "empty": (b"", 400, "invalid_audio"),
    "text": (b"these are words, not sound" * 50, 400, "invalid_audio"),
    "playlist": (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", 400, "invalid_audio"),
    "too short": (wav(seconds=0.9), 400, "audio_too_short"),
    "long silence": (encode(np.zeros(24000 * 3600, np.float32), 24000, "flac", "flac"), 400, "audio_too_long"),
    "silence": (encode(np.zeros(24000 * 3, np.float32), 24000), 400, "audio_silent"),
    "clipped": (encode(np.clip(recording()[0] * 50, -1, 1), 24000), 400, "audio_clipped"),
    "noise": (
        encode(np.random.default_rng(0).standard_normal(72000).astype(np.float32) * 0.1, 24000), 400,
        "audio_without_speech",
    ),
    "too many bytes": (wav() + bytes(MAX_AUDIO_BYTES), 413, "audio_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_AUDIO)
def test_hostile_recordings_leave_nothing(client: httpx.Client, voices: Path, case: str) -> None:
    audio, status, code = HOSTILE_AUDIO[case]
    error = fault(upload(client, "anna", audio), status)
    assert error["code"] == code, error
    assert error["param"] == "audio_sample"
    assert error["message"].startswith("audio_sample ")
    assert files(voices) == []
    assert upload(client, "anna").status_code == 200, "the next good upload was refused"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"consent": ""}, "consent"),
        ({"consent": "x" * 1001}, "consent"),
        ({"ref_text": "x" * 4097}, "ref_text"),
        ({"speaker_description": "x" * 4097}, "speaker_description"),
        ({"ref_text": "Words.", "x_vector_only_mode": "true"}, "ref_text"),
        ({"overwrite": "perhaps"}, "overwrite"),
        ({"ref_text": "  "}, "ref_text"),
        ({"colour": "red"}, "colour"),
        ({"type": "prompt"}, "type"),
    ],
)
def test_bad_fields_of_the_form(client: httpx.Client, voices: Path, fields: dict[str, str], param: str) -> None:
    fault(upload(client, **fields), 400, param)
    assert files(voices) == []


def test_bad_forms(service: Service, client: httpx.Client) -> None:
    fault(client.post("/v1/audio/voices", data={"name": "a", "consent": "b"}, files={"x": b""}), 400)
    fault(client.post("/v1/audio/voices", files={"name": (None, "a"), "consent": (None, "b")}), 400, "audio_sample")
    fault(client.post("/v1/audio/voices", json={"name": "a"}), 415)
    form = client.build_request("POST", "/v1/audio/voices", data={"name": "a"}, files={"audio_sample": wav()})
    odd = {"content-type": form.headers["content-type"] + "; charset=unicode_escape"}
    fault(client.post("/v1/audio/voices", content=form.read(), headers=odd), 400)
    head = {"content-type": "multipart/form-data; boundary=x"}
    for content in (b"", b"--x\r\n", b"garbage", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n"):
        fault(client.post("/v1/audio/voices", content=content, headers=head), 400)
    fault(client.post("/v1/audio/voices", content=b"", headers={"content-type": "multipart/form-data"}), 400)
    fault(client.post("/v1/audio/voices", content=b"x" * (MAX_BODY_BYTES + 1), headers=head), 413)


def test_an_upload_that_breaks_off_leaves_nothing(service: Service, client: httpx.Client, voices: Path) -> None:
    content = client.build_request(
        "POST", "/v1/audio/voices", data={"name": "anna", "consent": "given"}, files={"audio_sample": wav()}
    )
    body = content.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in content.headers.items())
    for sent in (0, 100, len(body) // 2, len(body) - 1):
        with socket.create_connection((content.url.host, content.url.port or 80), timeout=PATIENCE_S) as connection:
            connection.sendall(f"POST /v1/audio/voices HTTP/1.1\r\n{head}\r\n".encode() + body[:sent])
    with socket.create_connection((content.url.host, content.url.port or 80), timeout=PATIENCE_S) as stalled:
        stalled.sendall(f"POST /v1/audio/voices HTTP/1.1\r\n{head}\r\n".encode() + body[:1000])
        assert stalled.recv(4096).decode().startswith("HTTP/1.1 408"), "a stalled upload was not timed out"
    fault(client.get("/v1/audio/voices/anna"), 404)
    assert files(voices) == []
    assert upload(client).status_code == 200


def test_a_declared_gigabyte_is_refused_before_it_is_sent(service: Service) -> None:
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S) as connection:
        connection.sendall(
            f"POST /v1/audio/voices HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {10**9}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode()
        )
        assert connection.recv(4096).decode().startswith("HTTP/1.1 413")
