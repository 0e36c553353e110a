"""Answers to bad input: OpenAI's error object, the right status and the field. The next good request works."""

import json
import select
import socket
import threading
from contextlib import ExitStack, suppress
from typing import Self

import httpx
import pytest

from tests.serve.calls import PATIENCE_S, wait_until
from tests.serve.conftest import BODY_PAUSE_S, CUSTOM, DESIGN, MAX_BODY_BYTES, Service

JSON = {"content-type": "application/json"}

# name: (changes to a good body, status, param, words the message must hold)
CASES: dict[str, tuple[dict[str, object], int, str | None, list[str]]] = {
    "missing input": ({"input": None}, 400, "input", ["input"]),
    "empty input": ({"input": ""}, 400, "input", ["empty"]),
    "whitespace": ({"input": " \n\t\u3000"}, 400, "input", ["empty"]),
    "too long": ({"input": "a" * 40_001}, 400, "input", ["40001", "40000"]),
    "instructions too long": ({"instructions": "a" * 4097}, 400, "instructions", ["4097", "4096"]),
    "numbers in words of which language?": ({"normalize_text": True}, 400, "normalize_text", ["auto", "chinese"]),
    "input of another type": ({"input": 5}, 400, "input", ["string"]),
    "unknown field": ({"inptu": "x"}, 400, "inptu", ["unknown field", "temperature"]),
    "unknown model": ({"model": "gpt"}, 404, "model", [CUSTOM, DESIGN]),
    "unknown voice": ({"voice": "bob"}, 404, "voice", ["bob", "ryan", "vivian"]),
    "missing voice": ({"voice": None}, 400, "voice", ["ryan"]),
    "voice of another type": ({"voice": 3}, 400, "voice", []),
    "unknown language": ({"language": "klingon"}, 400, "language", ["klingon", "english", "auto"]),
    "voice for a model that has none": ({"model": DESIGN, "instructions": "low"}, 400, "voice", [DESIGN]),
    "no description": ({"model": DESIGN, "voice": None}, 400, "instructions", ["instructions"]),
    "format not offered": ({"response_format": "ogg"}, 400, "response_format", ["wav", "opus"]),
    "rate not offered": ({"sample_rate": 12345}, 400, "sample_rate", ["12345", "8000", "48000"]),
    "rate as text": ({"sample_rate": "8 kHz"}, 400, "sample_rate", ["integer"]),
    "rate that Opus has not": (
        {"response_format": "opus", "sample_rate": 44100}, 400, "sample_rate", ["opus", "24000", "48000"],
    ),
    "too slow": ({"speed": 0.2}, 400, "speed", ["0.2", "0.25", "4.0"]),
    "too fast": ({"speed": 5}, 400, "speed", ["5", "0.25", "4.0"]),
    "speed as text": ({"speed": "fast"}, 400, "speed", ["number"]),
    "temperature high": ({"temperature": 2.1}, 400, "temperature", ["2.1", "2.0"]),
    "temperature negative": ({"temperature": -0.1}, 400, "temperature", ["at least 0"]),
    "temperature as text": ({"temperature": "hot"}, 400, "temperature", ["number"]),
    "top_k negative": ({"top_k": -1}, 400, "top_k", ["at least 0"]),
    "top_k fraction": ({"top_k": 1.5}, 400, "top_k", ["integer"]),
    "top_p negative": ({"top_p": -0.1}, 400, "top_p", ["at least 0"]),
    "top_p above one": ({"top_p": 1.1}, 400, "top_p", ["at most 1"]),
    "subtalker_top_p above one": ({"subtalker_top_p": 1.1}, 400, "subtalker_top_p", ["at most 1"]),
    "seed negative": ({"seed": -1}, 400, "seed", ["at least 0"]),
    "seed too large": ({"seed": 2**63}, 400, "seed", ["at most"]),
    "seed as boolean": ({"seed": True}, 400, "seed", ["integer"]),
    "no frames": ({"max_new_tokens": 0}, 400, "max_new_tokens", ["at least 1"]),
}  # fmt: skip


def check(response: httpx.Response, status: int, param: str | None, words: list[str]) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    assert "Traceback" not in response.text
    for word in words:
        assert word in error["message"], error


def check_service_works(client: httpx.Client) -> None:
    good = {"input": "Hello", "voice": "ryan", "seed": 1, "max_new_tokens": 2}
    assert client.post("/v1/audio/speech", json=good).status_code == 200


@pytest.mark.parametrize("case", CASES)
def test_bad_field(client: httpx.Client, case: str) -> None:
    changes, status, param, words = CASES[case]
    body = {name: v for name, v in ({"input": "Hi", "voice": "ryan"} | changes).items() if v is not None}
    check(client.post("/v1/audio/speech", json=body), status, param, words)
    check_service_works(client)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b'{"input": "Hi"', 400, ["JSON"]),
        (b"", 400, ["JSON"]),
        (b"[1, 2]", 400, ["object"]),
        (b'{"input": "\\ud800", "voice": "ryan"}', 400, []),
        (b'{"input": "Hi", "voice": "ryan", "temperature": NaN}', 400, []),
        (b"\xff\xfe", 400, ["JSON"]),
        (json.dumps({str(n): 0 for n in range(100_000)}).encode(), 400, ["unknown field '0'", "temperature"]),
        (json.dumps({"input": "Hi", "speaker_embedding": ["x"] * 300_000}).encode(), 400, ["speaker_embedding"]),
        (json.dumps({"input": "Hi", "voice": "x" * 1_000_000}).encode(), 400, ["voice", "256 characters"]),
        (json.dumps({"input": "a" * MAX_BODY_BYTES}).encode(), 413, [str(MAX_BODY_BYTES)]),
    ],
    ids=[
        "cut off", "empty", "array", "surrogate", "NaN", "not UTF-8", "many fields", "many faults", "long name",
        "too large",
    ],
)  # fmt: skip
def test_bad_body(client: httpx.Client, content: bytes, status: int, words: list[str]) -> None:
    response = client.post("/v1/audio/speech", content=content, headers=JSON)
    check(response, status, response.json()["error"]["param"], words)
    assert len(response.content) < 2000, "the answer repeats the input"
    check_service_works(client)


def test_wrong_content_type(client: httpx.Client) -> None:
    response = client.post("/v1/audio/speech", content=b'{"input": "Hi"}', headers={"content-type": "text/plain"})
    check(response, 415, None, ["application/json", "text/plain"])


def test_unknown_path_and_method(client: httpx.Client) -> None:
    check(client.get("/v1/nothing"), 404, None, ["/v1/nothing"])
    check(client.get("/v1/audio/speech"), 405, None, ["GET"])


def test_a_client_cannot_ask_the_proxy_to_work_on_for_nobody(client: httpx.Client) -> None:
    body = {"input": "Hi", "voice": "ryan"}
    response = client.post("/v1/audio/speech", json=body, headers={"x-request-disconnect-disabled": "?1"})
    check(response, 400, None, ["x-request-disconnect-disabled"])


def test_bodies_under_way_have_a_bound_together(service: Service, client: httpx.Client) -> None:
    """Eight bodies of nearly the largest size begin; six have room. (Pauses: tests/deployments/http/test_bodies.py.)"""
    url = httpx.URL(service.url)
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
    begun = MAX_BODY_BYTES - 1000
    start = f"{head}Content-Length: {MAX_BODY_BYTES}\r\n\r\n".encode() + b" " * begun
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S))
            for _ in range(8)
        ]
        going_on = stack.enter_context(Dripping())
        for connection in connections:
            with suppress(OSError):  # it was refused meanwhile
                connection.sendall(start)
            going_on.add(connection)
        wait_until(lambda: len(answered(connections)) == 2, "two are not refused")
        refused = answered(connections)
        more_bytes = going_on.stop()
        for connection in connections:
            if connection not in refused:
                connection.sendall(b" " * (MAX_BODY_BYTES - begun - more_bytes[connection]))
        answers = {connection: connection.recv(4096).decode().splitlines()[0] for connection in connections}
    for connection, answer in answers.items():
        assert (" 429 " if connection in refused else " 400 ") in answer, answers.values()
    check_service_works(client)


def answered(connections: list[socket.socket]) -> list[socket.socket]:
    return select.select(connections, [], [], 0)[0]


class Dripping:
    """Sends a byte on each connection now and then, so that no connection pauses for long."""

    def __init__(self) -> None:
        self._sent: dict[socket.socket, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, connection: socket.socket) -> None:
        self._sent[connection] = 0

    def stop(self) -> dict[socket.socket, int]:
        """Stop, and return the number of bytes that were sent on each connection."""
        self._over.set()
        self._thread.join()
        return self._sent

    def _run(self) -> None:
        while not self._over.wait(BODY_PAUSE_S / 20):
            for connection in list(self._sent):
                with suppress(OSError):  # it was refused and closed
                    self._sent[connection] += connection.send(b" ")


def test_a_body_that_never_ends_is_cut_off(service: Service) -> None:
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S) as connection:
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"input": '.encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 408"), answer
