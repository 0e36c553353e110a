"""DashScope's official realtime client, unmodified except for its URL, and traffic that no client would send."""

import base64
import itertools
import json
import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dashscope
import httpx
import numpy as np
import pytest
from dashscope.audio.qwen_tts_realtime import QwenTtsRealtime, QwenTtsRealtimeCallback
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.serve.calls import FRAME_BYTES, PATIENCE_S
from tests.serve.conftest import Service
from tests.serve.test_openai_client import wait_until_idle

BEGINNING = [
    "input_text_buffer.committed",
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
]
ENDING = ["response.audio.done", "response.content_part.done", "response.output_item.done", "response.done"]
# A text that keeps the service speaking for a while.
LONG = "One two three four five six seven eight nine. " * 5

ASKED = [
    json.dumps({"type": "session.update", "session": {"voice": "ryan", "max_new_tokens": 3000}}),
    json.dumps({"type": "input_text_buffer.append", "text": LONG}),
]


class Call(QwenTtsRealtimeCallback):
    """One connection, and the events that were received on it."""

    def __init__(self, service: Service) -> None:
        self.arriving: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        url = service.url.replace("http", "ws") + "/api-ws/v1/realtime"
        self.client: Any = QwenTtsRealtime(model="qwen3-tts-flash-realtime", callback=self, url=url)

    def on_event(self, message: dict[str, Any]) -> None:  # type: ignore[override]  # it is no string, whatever it says
        self.arriving.put(message)

    def on_close(self, close_status_code: int | None, close_msg: str | None) -> None:
        self.arriving.put({"type": "closed", "code": close_status_code})

    def until(self, kind: str) -> dict[str, Any]:
        """Return the next event of a type."""
        while True:
            event = self.arriving.get(timeout=PATIENCE_S)
            self.events.append(event)
            if event["type"] == kind:
                return event

    def session(self, **fields: object) -> dict[str, Any]:
        self.client.update_session(**{"voice": "ryan", "seed": 1, "max_new_tokens": 5} | fields)
        session: dict[str, Any] = self.until("session.updated")["session"]
        return session

    def refused(self) -> dict[str, Any]:
        error: dict[str, Any] = self.until("error")["error"]
        assert "Traceback" not in error["message"]
        return error


@contextmanager
def calling(service: Service) -> Iterator[Call]:
    """Yield a connected client. At the end the client vanishes, if the server has not closed.

    The client's own `close` is not used: it and the client's thread read each other's messages and wait for seconds.
    The client does not close its socket after the server has closed, either.
    """
    call = Call(service)
    call.client.connect()
    connection: socket.socket = call.client.ws.sock.sock
    try:
        yield call
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        call.client.thread.join(PATIENCE_S)
        connection.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "api_key", "unused")


def types(events: list[dict[str, Any]]) -> list[str]:
    """Return the types of the events in order, with repeated types once."""
    return [kind for kind, _ in itertools.groupby(event["type"] for event in events)]


def audio(events: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == "response.audio.delta")


def said(client: httpx.Client, text: str, **fields: object) -> bytes:
    """Return the audio of a text from the HTTP route."""
    body = {"input": text, "voice": "ryan", "seed": 1, "max_new_tokens": 5, "response_format": "pcm"}
    response = client.post("/v1/audio/speech", json=body | fields)
    assert response.status_code == 200, response.text
    return response.content


def differences(one: bytes, other: bytes) -> int:
    """Return the largest difference of two recordings: pieces of other sizes differ in the last bit of float32."""
    assert len(one) == len(other)
    return int(np.abs(np.frombuffer(one, "<i2").astype(int) - np.frombuffer(other, "<i2").astype(int)).max())


def test_text_that_is_appended_is_one_response(service: Service, client: httpx.Client) -> None:
    with calling(service) as call:
        created = call.until("session.created")["session"]
        assert created | {"id": "sess"} == {
            "object": "realtime.session",
            "id": "sess",
            "model": "qwen3-tts-flash-realtime",
            "voice": None,
            "mode": "server_commit",
            "language_type": "auto",
            "response_format": "pcm",
            "sample_rate": 24000,
        }
        assert call.session(language_type="English") == created | {"voice": "ryan", "language_type": "English"}
        for piece in ("One", " two", " th"):
            call.client.append_text(piece)
        call.until("response.audio.delta")  # before the text has ended
        call.client.append_text("ree.")
        call.client.finish()
        assert call.until("closed")["code"] == 1000
    events = call.events[2:-1]
    assert types(events) == [*BEGINNING, "response.audio.delta", *ENDING, "session.finished"]
    assert len({event["event_id"] for event in call.events[:-1]}) == len(call.events) - 1
    response, item = events[1]["response"], events[2]["item"]
    assert (response["status"], response["voice"], item["role"]) == ("in_progress", "ryan", "assistant")
    assert {event["response_id"] for event in events if "response_id" in event} == {response["id"]}
    assert {event["item_id"] for event in events if "item_id" in event} == {item["id"]}
    done = events[-2]["response"]
    assert (done["id"], done["status"], done["usage"]) == (response["id"], "incomplete", {"characters": 14})
    expected = said(client, "One two three.", language="english", non_streaming_mode=False)
    assert differences(audio(events), expected) <= 1


def test_each_commit_is_a_response(service: Service, client: httpx.Client) -> None:
    with calling(service) as call:
        call.session(mode="commit")
        heard = []
        for text in ("One two.", "Three."):
            call.client.append_text("Forget this.")
            call.client.clear_appended_text()
            call.client.append_text(text)
            call.client.commit()
            begin = len(call.events)
            done = call.until("response.done")["response"]
            events = call.events[begin:]
            assert types(events) == ["input_text_buffer.cleared", *BEGINNING, "response.audio.delta", *ENDING]
            assert done["usage"] == {"characters": len(text)}
            heard.append(audio(events))
        call.client.append_text("One two.")  # session.finish commits it
        call.client.finish()
        begin = len(call.events)
        assert call.until("closed")["code"] == 1000
        heard.append(audio(call.events[begin:]))
    for text, pcm in zip(("One two.", "Three.", "One two."), heard, strict=True):
        assert differences(pcm, said(client, text)) <= 1


def test_a_commit_of_a_growing_text_ends_it_and_another_begins(service: Service) -> None:
    with calling(service) as call:
        call.session()
        call.client.append_text("One ")
        call.client.append_text("two.")
        call.client.commit()
        call.client.append_text("Three.")
        call.client.finish()
        call.until("session.finished")
    done = [event["response"] for event in call.events if event["type"] == "response.done"]
    assert [response["usage"]["characters"] for response in done] == [8, 6]
    assert done[0]["id"] != done[1]["id"]
    # The second text may be committed at any time while the first is spoken.
    spoken = [event for event in call.events if event["type"] != "input_text_buffer.committed"]
    assert types(spoken).count("response.audio.delta") == 2


def test_a_response_is_cancelled_and_the_next_is_spoken(service: Service) -> None:
    with calling(service) as call:
        call.session(max_new_tokens=3000, mode="commit")
        call.client.append_text(LONG)
        call.client.commit()
        call.until("response.audio.delta")
        call.client.cancel_response()
        begin = len(call.events)
        assert call.until("response.done")["response"]["status"] == "incomplete"
        assert types(call.events[begin:])[-4:] == ENDING
        wait_until_idle(service)
        call.session(mode="server_commit")
        call.client.append_text("One.")
        call.client.commit()
        begin = len(call.events)
        call.until("response.done")
        assert len(audio(call.events[begin:])) == 5 * FRAME_BYTES


@pytest.mark.parametrize("mode", ["server_commit", "commit"])
def test_a_client_that_leaves_frees_its_slots(service: Service, mode: str) -> None:
    with calling(service) as call:
        call.session(max_new_tokens=3000, mode=mode)
        call.client.append_text(LONG)
        call.client.commit()
        call.until("response.audio.delta")
    wait_until_idle(service)


def test_responses_that_wait_are_bounded(service: Service) -> None:
    with calling(service) as call:
        call.session(max_new_tokens=3000, mode="commit")
        for _ in range(17):
            call.client.append_text("One.")
            call.client.commit()
        assert call.refused()["code"] == "too_many_responses"
    wait_until_idle(service)


def test_formats_rates_and_speeds(service: Service) -> None:
    with calling(service) as call:
        call.session(audio_format="mp3", sample_rate=16000, mode="commit")
        call.client.append_text("One.")
        call.client.commit()
        call.until("response.done")
        assert audio(call.events)[0] == 0xFF
        call.session(sample_rate=8000, speech_rate=2.0, mode="commit")
        begin = len(call.events)
        call.client.append_text("One.")
        call.client.commit()
        call.until("response.done")
        assert len(audio(call.events[begin:])) == pytest.approx(5 * FRAME_BYTES / 3 / 2, rel=0.1)


def test_what_is_refused_says_which_field_and_changes_nothing(service: Service) -> None:
    refusals: list[tuple[str, str, dict[str, object]]] = [
        ("voice", "unknown_voice", {"voice": "Cherry"}),
        ("mode", "invalid_value", {"mode": "later"}),
        ("volume", "field_not_supported", {"volume": 80}),
        ("pitch_rate", "field_not_supported", {"pitch_rate": 1.5}),
        ("bit_rate", "field_not_supported", {"bit_rate": 64}),
        ("enable_tn", "field_not_supported", {"enable_tn": True}),
        ("response_format", "invalid_value", {"audio_format": "midi"}),
        ("sample_rate", "invalid_value", {"sample_rate": 12345}),
        ("speech_rate", "out_of_range", {"speech_rate": 9.0}),
        ("colour", "unknown_field", {"colour": "red"}),
    ]
    with calling(service) as call:
        call.client.append_text("One.")
        assert (error := call.refused())["param"] == "voice", error
        assert "ryan" in error["message"]
        for param, code, fields in refusals:
            call.client.update_session(**{"voice": "ryan"} | fields)
            error = call.refused()
            assert (error["param"], error["code"]) == (param, code), error
        call.session(mode="commit", volume=50, pitch_rate=1.0, enable_tn=False)
        call.client.commit()
        assert call.refused()["code"] == "input_text_buffer_empty"
        call.client.append_text("x" * 40_001)
        assert call.refused()["code"] == "input_too_long"
        call.client.cancel_response()
        assert call.refused()["code"] == "response_cancel_not_active"
        call.client.send_raw(json.dumps({"type": "session.sing"}))
        assert call.refused()["code"] == "unknown_event"
        call.client.send_raw(json.dumps({"type": "input_text_buffer.append", "text": 5}))
        assert call.refused()["param"] == "text"
        call.session(language_type="Klingon")  # only the model can refuse it
        call.client.append_text("One.")
        call.client.commit()
        assert call.refused()["param"] == "language_type"
        begin = len(call.events)
        assert call.until("response.done")["response"]["status"] == "failed"
        assert types(call.events[begin:]) == ENDING
        call.session(language_type="English")
        call.client.append_text("One.")
        call.client.finish()
        assert call.until("closed")["code"] == 1000
        assert len(audio(call.events[begin:])) == 5 * FRAME_BYTES


@pytest.mark.parametrize(
    ("messages", "code", "close"),
    [
        ([b"\0" * 100], "protocol_error", 1002),
        (["hello"], "protocol_error", 1002),
        (["[1, 2]"], "protocol_error", 1002),
        ([json.dumps({"text": "no type"})], "protocol_error", 1002),
        ([json.dumps({"type": "input_text_buffer.append", "text": "x" * 5_000_000})], "message_too_large", 1009),
        ([*ASKED, '{"type": "session.finish"}', '{"type": "input_text_buffer.clear"}'], "protocol_error", 1002),
    ],
)
def test_malformed_traffic_ends_with_an_error(service: Service, messages: list[Any], code: str, close: int) -> None:
    url = service.url.replace("http", "ws") + "/api-ws/v1/realtime"
    events = []
    with connect(url, proxy=None) as connection:
        for message in messages:
            connection.send(message)
        with suppress(ConnectionClosed):
            while True:
                events.append(json.loads(connection.recv(timeout=PATIENCE_S)))
    errors = [event["error"]["code"] for event in events if event["type"] == "error"]
    assert (errors, connection.close_code) == ([code], close)
