"""The requests of the tests, and the checks of their answers."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.recordings import wav

# Anything that takes longer counts as never. No test measures a time of this length.
PATIENCE_S = 120.0
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


def wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until `holds` returns true, for at most PATIENCE_S. Fail with the message `otherwise`."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


@contextmanager
def posted(url: str, body: dict[str, Any]) -> Iterator[None]:
    """Send a request whose answer is not read. The client leaves when the context ends."""
    to, content = httpx.URL(url), json.dumps(body).encode()
    head = f"POST {to.path} HTTP/1.1\r\nHost: {to.host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((to.host, to.port or 80), timeout=PATIENCE_S) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        yield


def stored(client: httpx.Client) -> list[str]:
    return [voice["name"] for voice in client.get("/v1/audio/voices").json()["uploaded_voices"]]


def files(voices: Path) -> list[str]:
    """Return the files of the library on disk, without previews."""
    return [str(path) for path in voices.rglob("*") if path.is_file() and "previews" not in path.parts]
