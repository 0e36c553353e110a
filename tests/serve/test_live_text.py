"""Text written while it is spoken, over a real WebSocket: nari.speech.v1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.serve.calls import FRAME_BYTES, PATIENCE_S, upload
from tests.serve.conftest import BASE, CUSTOM, DESIGN, Service
from tests.serve.test_speech import speak, wait_until_idle

TEXT = "Hello there, how are you? 你好 now"
START = {"voice": "ryan", "seed": 5, "max_new_tokens": 60}


class Call:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.sequence = 0
        self.pcm: list[bytes] = []
        self.events: list[dict[str, Any]] = []

    def send(self, kind: str, **fields: object) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def write(self, text: str) -> None:
        self.send("input_text.append", sequence=self.sequence, text=text)
        self.sequence += 1

    def end(self) -> None:
        self.send("input_text.end", sequence=self.sequence)

    def receive(self) -> None:
        message = self.socket.recv(timeout=PATIENCE_S)
        if isinstance(message, bytes):
            self.pcm.append(message)
        else:
            self.events.append(json.loads(message))

    def until(self, kind: str) -> dict[str, Any]:
        while not self.events or self.events[-1]["type"] != kind:
            self.receive()
        return self.events[-1]

    def start(self, **fields: object) -> None:
        self.until("session.created")
        self.send("request.start", **START | fields)

    def close_code(self) -> int | None:
        """Read the server's last messages, and return how it closed."""
        while True:
            try:
                self.receive()
            except ConnectionClosed:
                return self.socket.close_code


@contextmanager
def calling(service: Service, key: str | None = None) -> Iterator[Call]:
    url = service.url.replace("http", "ws") + "/v1/audio/speech/ws"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with connect(url, subprotocols=[Subprotocol("nari.speech.v1")], additional_headers=headers, proxy=None) as socket:
        yield Call(socket)


@contextmanager
def slot_in_use(service: Service, key: str | None = None, **fields: object) -> Iterator[None]:
    """Keep a speech under way within the context, by a text that pauses.

    The speed of the machine does not matter. The service's `live_text_timeout_s` is the longest time.
    """
    with calling(service, key) as call:
        call.start(**fields)
        call.write("Hello ")
        call.until("response.started")
        yield


def whole(client: httpx.Client, **fields: object) -> bytes:
    body = START | {"input": TEXT, "response_format": "pcm", "non_streaming_mode": False} | fields
    return speak(client, **body).content


def test_text_in_letters_is_heard_like_the_whole_text(service: Service, client: httpx.Client) -> None:
    with calling(service) as call:
        created = call.until("session.created")
        audio = {"encoding": "pcm_s16le", "sample_rate": 24000, "channels": 1}
        assert (created["protocol"], created["audio"]) == ("nari.speech.v1", audio)
        call.start()
        request_id = call.until("request.configured")["request_id"]
        for letter in TEXT:
            call.write(letter)
        call.end()
        done = call.until("response.done")
        assert (done["request_id"], done["stop_reason"], done["audio_chunks"]) == (request_id, "length", len(call.pcm))
        assert call.close_code() == 1000
    assert {event["type"]: event for event in call.events}["response.started"]["audio"] == audio
    acks = [(event["event"], event["sequence"]) for event in call.events if event["type"] == "input_text.ack"]
    assert acks == [("input_text.append", n) for n in range(len(TEXT))] + [("input_text.end", len(TEXT))]
    expected, heard = whole(client), b"".join(call.pcm)
    assert len(heard) == len(expected) == 60 * FRAME_BYTES
    assert differences(heard, expected) <= 1
    wait_until_idle(service)


def differences(one: bytes, other: bytes) -> int:
    """Return the largest difference of two recordings: pieces of other sizes differ in the last bit of float32."""
    return int(np.abs(np.frombuffer(one, "<i2").astype(int) - np.frombuffer(other, "<i2").astype(int)).max())


def test_speech_begins_with_the_first_token_and_a_pause_keeps_nobody(service: Service, client: httpx.Client) -> None:
    """Audio of the first word arrives before the second word is written. Then the text pauses inside a word while other
    streams begin and end."""
    with calling(service) as call:
        call.start()
        call.until("request.configured")
        call.write("Hello ")
        call.until("response.started")
        call.write("th")
        while len(b"".join(call.pcm)) < len("Hello t") * FRAME_BYTES:  # one row per letter; the last may get an accent
            call.receive()
        for _ in range(3):
            assert len(whole(client, max_new_tokens=40)) == 40 * FRAME_BYTES
        assert len(b"".join(call.pcm)) == len("Hello t") * FRAME_BYTES
        assert service.load(f"talker-{CUSTOM}").used == 1, "the paused stream has lost its slot"
        call.write("ere, how are you? 你好 now")
        call.end()
        call.until("response.done")
    assert differences(b"".join(call.pcm), whole(client)) <= 1
    wait_until_idle(service)


def test_described_and_cloned_voices(service: Service, client: httpx.Client, empty_library: None) -> None:
    upload(client, "anna", ref_text="Hello there")
    voices = (
        {"voice": None, "model": DESIGN, "instructions": "A calm voice."},
        {"voice": "anna", "model": BASE},
    )
    for voice in voices:
        with calling(service) as call:
            call.start(**voice)
            for word in ("Hello ", "there, ", "how are you? ", "你好 now"):
                call.write(word)
            call.end()
            call.until("response.done")
        assert differences(b"".join(call.pcm), whole(client, **voice)) <= 1


@pytest.mark.parametrize("when", ["at once", "while it pauses", "while it speaks"])
@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_call_that_is_given_up_frees_its_slots(service: Service, when: str, how: str) -> None:
    with calling(service) as call:
        call.start(max_new_tokens=3000)
        call.until("request.configured")
        if when != "at once":
            call.write("Hello there")
            call.until("response.started")
        if when == "while it speaks":
            call.end()
        if how == "cancel":
            call.send("response.cancel")
            assert call.until("response.done")["stop_reason"] == "cancelled"
            assert call.close_code() == 1000
    wait_until_idle(service)


def test_what_is_refused(service: Service) -> None:
    def refused(code: str, close: int, *events: dict[str, object]) -> str:
        with calling(service) as call:
            for event in events:
                call.socket.send(json.dumps(event))
            error = call.until("error")["error"]
            assert (error["code"], call.close_code()) == (code, close), error
            assert "Traceback" not in error["message"]
        message: str = error["message"]
        return message

    start: dict[str, object] = {"type": "request.start", **START}
    append: dict[str, object] = {"type": "input_text.append", "sequence": 0, "text": "Hello there. "}
    end: dict[str, object] = {"type": "input_text.end", "sequence": 0}
    refused("protocol_error", 1002, append)
    refused("protocol_error", 1002, {"no": "type"})
    refused("protocol_error", 1002, start, start)
    refused("protocol_error", 1002, start, append, append)
    refused("protocol_error", 1002, start, append, end | {"sequence": 1}, append | {"sequence": 2})
    assert "ryan" in refused("unknown_voice", 1008, start | {"voice": "nobody"})
    assert "known fields" in refused("unknown_field", 1008, start | {"colour": "red"})
    refused("field_not_accepted", 1008, start | {"input": "Hello"})
    refused("invalid_value", 1008, start | {"response_format": "wav"})
    refused("out_of_range", 1008, start | {"temperature": 9})
    refused("invalid_value", 1008, start, append | {"text": 5})
    refused("empty_input", 1008, start, append | {"text": "  "}, end | {"sequence": 1})
    refused("input_too_long", 1009, start, append, append | {"sequence": 1, "text": "x" * 4097})
    refused("message_too_large", 1009, start | {"instructions": "x" * 400_000})
    wait_until_idle(service)


def test_a_client_without_the_subprotocol_is_told(service: Service) -> None:
    url = service.url.replace("http", "ws") + "/v1/audio/speech/ws"
    with connect(url, proxy=None) as socket:
        call = Call(socket)
        assert "nari.speech.v1" in call.until("error")["error"]["message"]
        assert call.close_code() == 1002
