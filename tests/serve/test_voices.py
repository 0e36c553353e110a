"""The voice library over a real socket: uploaded, listed, spoken, previewed, deleted, designed."""

import base64
import concurrent.futures
import io
import math
import socket
import threading
import time
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from ray import serve

from tests.recordings import encode, recording, wav
from tests.serve.conftest import BASE, CUSTOM, DESIGN, MAX_AUDIO_BYTES, MAX_BODY_BYTES, Service

FRAME_BYTES = 1920 * 2
SHORT = {"input": "Hello", "seed": 1, "max_new_tokens": 3, "response_format": "pcm"}


def upload(client: httpx.Client, name: str = "anna", audio: bytes | None = None, /, **fields: str) -> httpx.Response:
    files = {"audio_sample": ("voice.wav", wav() if audio is None else audio, "audio/wav")}
    return client.post("/v1/audio/voices", data={"name": name, "consent": "given", **fields}, files=files)


def speak(client: httpx.Client, **body: object) -> bytes:
    response = client.post("/v1/audio/speech", json=SHORT | body)
    assert response.status_code == 200, response.text[:500]
    assert len(response.content) == 3 * FRAME_BYTES
    return response.content


def fault(response: httpx.Response, status: int, param: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    if param is not None:
        assert error["param"] == param, error
    return error


def stored(client: httpx.Client) -> list[str]:
    return [voice["name"] for voice in client.get("/v1/audio/voices").json()["uploaded_voices"]]


@pytest.fixture(autouse=True)
def empty_library(client: httpx.Client) -> Iterator[None]:
    yield
    for name in stored(client):
        assert client.delete(f"/v1/audio/voices/{name}").status_code == 200


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


CONTAINERS = {
    "wav 8 kHz": ("wav", "pcm_s16le", 8000, 1),
    "wav 48 kHz stereo": ("wav", "pcm_s16le", 48000, 2),
    "mp3 44.1 kHz stereo": ("mp3", "libmp3lame", 44100, 2),
    "mp3 16 kHz": ("mp3", "libmp3lame", 16000, 1),
    "ogg opus": ("ogg", "libopus", 48000, 1),
    "ogg vorbis": ("ogg", "vorbis", 44100, 2),
    "flac": ("flac", "flac", 24000, 1),
    "m4a": ("mp4", "aac", 44100, 1),
    "webm": ("webm", "libopus", 48000, 1),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_any_container_and_rate(client: httpx.Client, case: str) -> None:
    container, codec, rate_hz, channels = CONTAINERS[case]
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
        voice = api.audio.voices.create(name="anna", audio_sample=("a.wav", wav(), "audio/wav"), consent="cons_1")
        assert (voice.name, voice.object) == ("anna", "audio.voice")
        with api.audio.speech.with_streaming_response.create(
            model="tts-1",
            voice={"id": voice.id},
            input="Hello",
            response_format="pcm",
            extra_body={"max_new_tokens": 5},
        ) as response:
            assert len(response.read()) == 5 * FRAME_BYTES
    assert client.get("/v1/audio/voices/anna").json()["consent"] == "cons_1"


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
    assert speak(client, voice="twin") == said, "the recording and the prompt are of one upload"


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
    assert upload(client, "anna").status_code == 200, "the next good one works"


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
        with socket.create_connection((content.url.host, content.url.port or 80), timeout=20) as connection:
            connection.sendall(f"POST /v1/audio/voices HTTP/1.1\r\n{head}\r\n".encode() + body[:sent])
    with socket.create_connection((content.url.host, content.url.port or 80), timeout=20) as stalled:
        stalled.sendall(f"POST /v1/audio/voices HTTP/1.1\r\n{head}\r\n".encode() + body[:1000])
        assert stalled.recv(4096).decode().startswith("HTTP/1.1 408"), "it need not break off to be given up"
    fault(client.get("/v1/audio/voices/anna"), 404)
    assert files(voices) == []
    assert upload(client).status_code == 200


def test_a_declared_gigabyte_is_refused_before_it_is_sent(service: Service) -> None:
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(
            f"POST /v1/audio/voices HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {10**9}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode()
        )
        assert connection.recv(4096).decode().startswith("HTTP/1.1 413")


def test_inline_references(client: httpx.Client) -> None:
    audio = wav()
    inline = base64.b64encode(audio).decode()
    upload(client, "anna", audio, ref_text="Words.")
    said = speak(client, voice="anna")
    assert said == speak(client, ref_audio=inline, ref_text="Words.")
    assert said == speak(client, ref_audio=f"data:audio/wav;base64,{inline}", ref_text="Words.", model=BASE)
    upload(client, "sound", audio)
    assert speak(client, voice="sound") == speak(client, ref_audio=inline, x_vector_only_mode=True)


def test_an_identical_reference_is_encoded_once(service: Service, client: httpx.Client) -> None:
    encoder = serve.get_deployment_handle("codec-encoder", service.app)

    def encoded() -> int:
        return sum(encoder.batch_sizes.remote().result(timeout_s=10))

    inline = base64.b64encode(wav("narrow")).decode()
    before = encoded()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda _: speak(client, ref_audio=inline, ref_text="Words."), range(6)))
    speak(client, ref_audio=inline, ref_text="Other words.")
    one, *others = (np.frombuffer(pcm, np.int16).astype(int) for pcm in said)
    assert all(abs(other - one).max() <= 1 for other in others), "a batch rounds as it pleases, by one step"
    assert encoded() - before == 1


def test_who_leaves_takes_the_shared_reference_from_nobody(service: Service, client: httpx.Client) -> None:
    """The one who asked first leaves while the recording is encoded, which another is waiting for."""
    minute = np.resize(recording("long")[0], 55 * 24000)

    def ask(body: dict[str, Any], patience_s: float) -> int:
        with service.client() as client:
            return client.post("/v1/audio/speech", json=body, timeout=patience_s).status_code

    for volume in (1.0, 0.9, 0.8):  # a new recording each time
        audio = encode(volume * minute, 24000, "ogg", "libopus")
        body = SHORT | {"ref_audio": base64.b64encode(audio).decode(), "ref_text": "Words."}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, body, 0.4)
            time.sleep(0.2)
            second = pool.submit(ask, body, 60.0)
            with pytest.raises(httpx.ReadTimeout):
                first.result()
            assert second.result() == 200


def test_batches_of_references_fill_while_the_model_is_busy(service: Service) -> None:
    encoder = serve.get_deployment_handle("codec-encoder", service.app)
    before = len(encoder.batch_sizes.remote().result(timeout_s=10))
    answers = [encoder.encode.remote(BASE, wav(seconds=1 + index / 10)) for index in range(12)]
    codes = [answer.result(timeout_s=60).codes for answer in answers]
    assert [len(frames) for frames in codes] == [math.ceil((1 + index / 10) * 12.5) for index in range(12)]
    sizes = encoder.batch_sizes.remote().result(timeout_s=10)[before:]
    assert sum(sizes) == 12
    assert len(sizes) < 6, sizes


def test_a_raw_speaker_embedding(client: httpx.Client) -> None:
    one, other = ([float(x) for x in np.random.default_rng(seed).standard_normal(128)] for seed in (1, 2))
    assert speak(client, speaker_embedding=one) == speak(client, speaker_embedding=one, model=BASE)
    assert speak(client, speaker_embedding=one) != speak(client, speaker_embedding=other)
    body = SHORT | {"speaker_embedding": one[:64]}
    error = fault(client.post("/v1/audio/speech", json=body), 400, "speaker_embedding")
    assert "64" in error["message"]
    assert "128" in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"ref_audio": "AAAA", "voice": "ryan"}, 400, "ref_audio"),
        ({"ref_audio": "AAAA", "speaker_embedding": [1.0]}, 400, "speaker_embedding"),
        ({"ref_audio": "AAAA"}, 400, "ref_text"),
        ({"ref_audio": "AAAA", "ref_text": "a", "x_vector_only_mode": True}, 400, "ref_text"),
        ({"voice": "ryan", "ref_text": "a"}, 400, "ref_text"),
        ({"voice": "ryan", "x_vector_only_mode": True}, 400, "x_vector_only_mode"),
        ({"ref_audio": "not base64!", "ref_text": "a"}, 400, "ref_audio"),
        ({"ref_audio": "AAAA", "ref_text": "a"}, 400, "ref_audio"),
        ({"ref_audio": "AAAA", "ref_text": "a", "instructions": "softly"}, 400, "instructions"),
        ({"ref_audio": "/etc/passwd", "ref_text": "a"}, 400, "ref_audio"),
        ({"ref_audio": base64.b64encode(bytes(MAX_AUDIO_BYTES + 1)).decode(), "ref_text": "a"}, 413, "ref_audio"),
        ({"speaker_embedding": []}, 400, "speaker_embedding"),
        ({"speaker_embedding": ["1"]}, 400, "speaker_embedding"),
        ({"speaker_embedding": [0.0] * 20000}, 400, "speaker_embedding"),
    ],
)
def test_references_that_cannot_be(client: httpx.Client, body: dict[str, object], status: int, param: str) -> None:
    fault(client.post("/v1/audio/speech", json=SHORT | body), status, param)


@pytest.fixture(scope="module")
def inside() -> Iterator[str]:
    """A web server in the network, which must never be asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a.wav", "https://127.0.0.1:{port}/a.wav", "https://localhost:{port}/a.wav",
        "https://[::1]:{port}/a.wav", "https://[::ffff:127.0.0.1]:{port}/", "https://0x7f000001:{port}/",
        "https://2130706433:{port}/", "https://0.0.0.0:{port}/", "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/", "https://192.168.1.1/", "https://[fe80::1]/", "https://[fd00::1]/",
        "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "https://user:word@127.0.0.1:{port}/", "https://",
    ],
)  # fmt: skip
def test_urls_cannot_reach_inside_the_network(client: httpx.Client, inside: str, url: str) -> None:
    body = SHORT | {"ref_audio": url.format(port=inside), "ref_text": "a"}
    error = fault(client.post("/v1/audio/speech", json=body), 400, "ref_audio")
    assert error["code"] in ("url_not_allowed", "url_fetch_failed"), error


# model, the rest of the request -> the model that speaks
ROUTES: dict[str, tuple[str | None, dict[str, object], str]] = {
    "built-in speaker": (None, {"voice": "Serena"}, CUSTOM),
    "built-in speaker, auto": ("auto", {"voice": "serena", "instructions": "softly"}, CUSTOM),
    "built-in speaker, tts-1": ("tts-1", {"voice": "ryan"}, CUSTOM),
    "built-in speaker, tts-1-hd": ("tts-1-hd", {"voice": "ryan"}, CUSTOM),
    "description": (None, {"instructions": "A low voice"}, DESIGN),
    "description, gpt-4o-mini-tts": ("gpt-4o-mini-tts", {"instructions": "A low voice"}, DESIGN),
    "stored voice": (None, {"voice": "anna"}, BASE),
    "stored voice, auto": ("auto", {"voice": "ANNA"}, BASE),
    "reference": (None, {"ref_audio": base64.b64encode(wav()).decode(), "ref_text": "a"}, BASE),
    "embedding": ("auto", {"speaker_embedding": [0.5] * 128}, BASE),
    "named": (DESIGN, {"instructions": "A low voice"}, DESIGN),
}


@pytest.mark.parametrize("case", ROUTES)
def test_routing(client: httpx.Client, case: str) -> None:
    model, body, expected = ROUTES[case]
    upload(client, "anna")
    response = client.post("/v1/audio/speech", json=SHORT | body | ({} if model is None else {"model": model}))
    assert response.status_code == 200, response.text[:500]
    assert response.headers["x-model"] == expected


# the request -> status, param, words of the message
REFUSED_ROUTES: dict[str, tuple[dict[str, object], int, str, list[str]]] = {
    "nothing to go by": ({}, 400, "voice", ["ryan", "anna", "instructions", "ref_audio"]),
    "unknown voice": ({"voice": "bob"}, 404, "voice", ["bob", "ryan", "anna"]),
    "stored voice, custom voice model": ({"voice": "anna", "model": CUSTOM}, 400, "voice", [CUSTOM, BASE]),
    "stored voice, design model": ({"voice": "anna", "model": DESIGN}, 400, "voice", [DESIGN]),
    "built-in voice, base model": ({"voice": "ryan", "model": BASE}, 400, "voice", [CUSTOM, BASE]),
    "no voice, base model": ({"model": BASE}, 400, "voice", [BASE, "anna", "ref_audio"]),
    "no voice, custom voice model": ({"model": CUSTOM, "instructions": "low"}, 400, "voice", ["ryan"]),
    "reference, custom voice model": (
        {"model": CUSTOM, "ref_audio": "AAAA", "ref_text": "a"}, 400, "ref_audio", [CUSTOM, BASE],
    ),
    "embedding, design model": ({"model": DESIGN, "speaker_embedding": [1.0]}, 400, "speaker_embedding", [BASE]),
    "stored voice with instructions": ({"voice": "anna", "instructions": "softly"}, 400, "instructions", []),
    "unknown model": ({"voice": "ryan", "model": "gpt"}, 404, "model", [CUSTOM, BASE, DESIGN, "auto"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_ROUTES)
def test_refused_routes(client: httpx.Client, case: str) -> None:
    body, status, param, words = REFUSED_ROUTES[case]
    upload(client, "anna")
    message = fault(client.post("/v1/audio/speech", json=SHORT | body), status, param)["message"]
    for word in words:
        assert word in message


DESIGN_BODY = {"description": "A low, warm voice.", "input": "This is how I sound.", "max_new_tokens": 20}


def test_design_then_keep_in_two_calls(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/voices/design", json=DESIGN_BODY | {"candidates": 3, "seed": 5})
    assert answer.status_code == 200, answer.text
    previews = answer.json()["data"]
    assert [preview["seed"] for preview in previews] == [5, 6, 7]
    sounds = [base64.b64decode(preview["audio"]) for preview in previews]
    assert len(set(sounds)) == 3
    assert "cut off" in previews[0]["flaw"]
    for sound in sounds:
        with wave.open(io.BytesIO(sound)) as file:
            assert (file.getframerate(), file.getnframes()) == (24000, 20 * 1920)
    chosen = previews[1]["id"]
    kept = client.post(f"/v1/audio/voices/design/{chosen}", json={"name": "warm"})
    assert kept.status_code == 200, kept.text
    assert kept.json()["source"] == "design"
    assert kept.json()["ref_text"] is None, "it was cut off, so these are not the words spoken"
    assert client.get("/v1/audio/voices/warm/audio").content == sounds[1]
    speak(client, voice="warm")
    fault(client.post(f"/v1/audio/voices/design/{chosen}", json={"name": "again"}), 404, "preview_id")
    fault(client.post(f"/v1/audio/voices/design/{previews[0]['id']}", json={"name": "warm"}), 409)
    other = client.post(f"/v1/audio/voices/design/{previews[0]['id']}", json={"name": "warm", "overwrite": True})
    assert other.status_code == 200
    assert client.get("/v1/audio/voices/warm/audio").content == sounds[0]


def test_design_in_one_call_stores_nothing_unfit(client: httpx.Client, voices: Path) -> None:
    """Random weights never end by themselves here. (What is stored of fit ones: tests/unit/test_voice_design.py.)"""
    answer = client.post("/v1/audio/voices/design", json=DESIGN_BODY | {"name": "warm", "candidates": 2, "seed": 5})
    assert "cut off" in fault(answer, 422)["message"]
    assert files(voices) == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"description": ""}, 400, "description"),
        ({"input": " "}, 400, "input"),
        ({"input": "a" * 5000}, 400, "input"),
        ({"candidates": 0}, 400, "candidates"),
        ({"candidates": 5}, 400, "candidates"),
        ({"name": "../x"}, 400, "name"),
        ({"name": "ryan"}, 400, "name"),
        ({"model": CUSTOM}, 400, "model"),
        ({"model": "gpt"}, 404, "model"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_designs_that_cannot_be(
    client: httpx.Client, voices: Path, body: dict[str, object], status: int, param: str
) -> None:
    fault(client.post("/v1/audio/voices/design", json=DESIGN_BODY | body), status, param)
    assert files(voices) == []


@pytest.mark.parametrize("preview", ["preview_0", "..%2f..%2fx", "anna", "preview_" + "0" * 32])
def test_previews_that_are_not(client: httpx.Client, preview: str) -> None:
    fault(client.post(f"/v1/audio/voices/design/{preview}", json={"name": "warm"}), 404)


def files(voices: Path) -> list[str]:
    """What the library holds on disk, previews aside."""
    return [str(path) for path in voices.rglob("*") if path.is_file() and "previews" not in path.parts]
