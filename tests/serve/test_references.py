"""Voices in the request itself: recordings, URLs, speaker embeddings."""

import base64
import concurrent.futures
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.replicas.codec_encoder import CodecEncoderDeployment
from tests.recordings import encode, recording, wav
from tests.serve.calls import SHORT, fault, speak, upload
from tests.serve.conftest import BASE, MAX_AUDIO_BYTES, Service

pytestmark = pytest.mark.usefixtures("empty_library")


def test_inline_references(client: httpx.Client) -> None:
    audio = wav()
    inline = base64.b64encode(audio).decode()
    upload(client, "anna", audio, ref_text="Words.")
    said = speak(client, voice="anna")
    assert said == speak(client, ref_audio=inline, ref_text="Words.")
    assert said == speak(client, ref_audio=f"data:audio/wav;base64,{inline}", ref_text="Words.", model=BASE)
    upload(client, "sound", audio)
    assert speak(client, voice="sound") == speak(client, ref_audio=inline, x_vector_only_mode=True)


def count_references(encoder: CodecEncoderDeployment) -> None:
    run, batches = encoder._batcher._run, list[int]()

    def counted(clips: Sequence[Any]) -> Sequence[Any]:
        batches.append(len(clips))
        return run(clips)

    counted.batches = batches  # type: ignore[attr-defined]  # where counted_references finds it
    encoder._batcher._run = counted


def counted_references(encoder: CodecEncoderDeployment) -> int:
    run: Any = encoder._batcher._run
    encoder._batcher._run = encoder._encode
    return sum(run.batches)


def test_an_identical_reference_is_encoded_once(service: Service, client: httpx.Client) -> None:
    inline = base64.b64encode(wav("narrow")).decode()
    service.in_replicas("codec-encoder", count_references)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda _: speak(client, ref_audio=inline, ref_text="Words."), range(6)))
    speak(client, ref_audio=inline, ref_text="Other words.")
    one, *others = (np.frombuffer(pcm, np.int16).astype(int) for pcm in said)
    assert all(abs(other - one).max() <= 1 for other in others), "the audio differs by more than rounding"
    assert service.in_replicas("codec-encoder", counted_references) == [1]


def test_who_leaves_takes_the_shared_reference_from_nobody(service: Service, client: httpx.Client) -> None:
    """The first caller leaves while the recording is encoded, and another caller waits for the same recording."""
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
    """A web server in the network, to which no request may be sent."""
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
