"""`helm test` fails on silence, on noise of an implausible length, on refusals, and without a service."""

import io
import json
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.k8s.hearing import run_test_pod
from tests.k8s.local_ray import free_ports

RATE_HZ = 24_000
KEY = "qtts-key"


def wav(seconds: float, loudness: float) -> bytes:
    noise = np.random.default_rng(0).standard_normal(int(seconds * RATE_HZ)) * loudness * 32767
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(noise.clip(-32768, 32767).astype("<i2").tobytes())
    return file.getvalue()


@contextmanager
def answering(audio: bytes) -> Iterator[str]:
    """A service with one built-in voice that always answers `audio`, if the caller has the key."""

    class Service(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers = {
                "/readyz": b"{}",
                "/v1/models": json.dumps({"data": [{"id": "m", "type": "custom_voice"}]}).encode(),
                "/v1/audio/voices": json.dumps({"data": [{"id": "ryan", "model": "m"}]}).encode(),
                "/v1/audio/speech": audio,
            }
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            open_to_all = self.path == "/readyz" or self.headers["Authorization"] == f"Bearer {KEY}"
            self.send_response(200 if open_to_all else 401)
            self.end_headers()
            self.wfile.write(answers[self.path] if open_to_all else b"no key")

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("seconds", "loudness", "said"),
    [
        (3, 0.05, "passed"),
        (3, 0.0, "silence"),
        (0.2, 0.05, "no plausible duration"),
        (60, 0.05, "no plausible duration"),
    ],
)
def test_what_is_heard_is_judged(helm: Path, seconds: float, loudness: float, said: str) -> None:
    with answering(wav(seconds, loudness)) as url:
        heard = run_test_pod(helm, url, key=KEY)
    assert said in heard.stdout + heard.stderr
    assert (heard.returncode == 0) == (said == "passed")


def test_who_has_no_key_is_told(helm: Path) -> None:
    with answering(b"") as url:
        heard = run_test_pod(helm, url)
    assert heard.returncode == 1
    assert "401" in heard.stderr


def test_nobody_is_not_waited_for_without_end(helm: Path) -> None:
    (port,) = free_ports(1)
    heard = run_test_pod(helm, f"http://127.0.0.1:{port}", seconds="0")
    assert heard.returncode == 1
    assert "was not ready" in heard.stderr
