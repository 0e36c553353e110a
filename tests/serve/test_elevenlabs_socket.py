"""ElevenLabs' stream-input on plain sockets: utterances of one connection, and traffic that no client would send."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.serve.calls import FRAME_BYTES, PATIENCE_S
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_dashscope_client import LONG, differences, said
from tests.serve.test_openai_client import wait_until_idle

FIRST = {"text": " ", "voice_settings": {"stability": 0.5, "speed": 1}, "max_new_tokens": 5}
ENDLESS = FIRST | {"max_new_tokens": 3000}
END = {"text": ""}


class Call:
    """One connection, and the messages that were received on it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.socket.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        self.heard.append(json.loads(self.socket.recv(timeout=PATIENCE_S)))
        return self.heard[-1]

    def audio(self, size_bytes: int) -> bytes:
        """Return the next `size_bytes` of audio."""
        pcm = b""
        while len(pcm) < size_bytes:
            pcm += base64.b64decode(self.receive()["audio"])
        assert len(pcm) == size_bytes
        return pcm

    def close_code(self) -> int | None:
        """Read the server's last messages, and return the code with which it closed."""
        with suppress(ConnectionClosed):
            while True:
                self.receive()
        return self.socket.close_code


@contextmanager
def calling(service: Service, query: str = "", voice: str = "ryan") -> Iterator[Call]:
    url = service.url.replace("http", "ws") + f"/v1/text-to-speech/{voice}/stream-input?output_format=pcm_24000{query}"
    with connect(url, proxy=None, max_size=None) as socket:
        yield Call(socket)


def test_two_utterances_on_one_connection(service: Service, client: httpx.Client) -> None:
    with calling(service, "&model_id=eleven_flash_v2_5&seed=1&language_code=en&auto_mode=true") as call:
        call.send(FIRST | {"generation_config": {"chunk_length_schedule": [120, 160]}, "xi_api_key": "unused"})
        call.send({"text": "One t", "try_trigger_generation": True}, {"text": "wo. ", "flush": True})
        first = call.audio(5 * FRAME_BYTES)
        call.send({"text": "Three. "}, END)
        second = call.audio(5 * FRAME_BYTES)
        assert call.close_code() == 1000
    *audio, last = call.heard
    assert last == {"isFinal": True}
    assert {name: audio[0][name] for name in audio[0] if name != "audio"} == {
        "isFinal": None,
        "alignment": None,
        "normalizedAlignment": None,
    }
    for pcm, text in ((first, "One two. "), (second, "Three. ")):
        assert differences(pcm, said(client, text, language="english", non_streaming_mode=False)) <= 1


def test_texts_that_are_flushed_ahead_are_spoken_in_turn(service: Service, client: httpx.Client) -> None:
    with calling(service, "&seed=1") as call:
        call.send(FIRST, {"text": "One. ", "flush": True}, {"text": " ", "flush": True}, {"text": "Two. "}, END)
        pcm = call.audio(10 * FRAME_BYTES)
        assert call.close_code() == 1000
    whole = [said(client, text, non_streaming_mode=False) for text in ("One. ", "Two. ")]
    assert differences(pcm, b"".join(whole)) <= 1


def test_speech_begins_before_its_text_has_ended(service: Service, client: httpx.Client) -> None:
    with calling(service, "&seed=1") as call:
        call.send(FIRST, {"text": "Hello "})
        call.receive()
        call.send({"text": "there, how are you? "}, END)
        assert call.close_code() == 1000
    *audio, last = call.heard
    assert last == {"isFinal": True}
    pcm = b"".join(base64.b64decode(message["audio"]) for message in audio)
    assert differences(pcm, said(client, "Hello there, how are you? ", non_streaming_mode=False)) <= 1


def test_nothing_to_say(service: Service) -> None:
    with calling(service) as call:
        call.send(FIRST, END)
        assert call.close_code() == 1000
    assert call.heard == [{"isFinal": True}]


@pytest.mark.parametrize("ended", [True, False])
def test_leaving_in_the_middle_frees_the_slots(service: Service, ended: bool) -> None:
    with calling(service) as call:
        call.send(ENDLESS, {"text": LONG, "flush": True}, {"text": LONG})
        if ended:
            call.send(END)
        call.receive()
        assert service.load(f"talker-{CUSTOM}").used == 1
    wait_until_idle(service)


@pytest.mark.parametrize(
    ("query", "messages", "error", "word"),
    [
        ("", [b"\x00\x01"], "protocol_error", "text messages"),
        ("", ["{"], "protocol_error", "JSON"),
        ("", ["[]"], "protocol_error", "object"),
        ("", ["x" * 5_000_000], "message_too_large", "262144"),
        ("", [{"voice_settings": {}}], "missing_field", "text"),
        ("", [{"text": 5}], "invalid_value", "text"),
        ("", [FIRST, {"text": "Hello ", "colour": "red"}], "unknown_field", "try_trigger_generation"),
        ("", [FIRST, {"text": "Hello ", "voice_settings": {"speed": 2}}], "protocol_error", "voice_settings"),
        ("", [FIRST, {"text": LONG}, END, {"text": "more "}], "protocol_error", "end"),
        ("", [FIRST, {"text": "a" * 4097}], "max_character_limit_exceeded", "4096"),
        ("", [ENDLESS, *[{"text": "Hello ", "flush": True}] * 20], "too_many_utterances", "9"),
        ("", [FIRST | {"pronunciation_dictionary_locators": [{}]}], "invalid_value", "pronunciation_dictionary"),
        ("", [FIRST | {"voice_settings": {"speed": 9}}], "out_of_range", "voice_settings.speed"),
        ("&inactivity_timeout=1", [], "input_timeout_exceeded", "1 s"),
        ("&inactivity_timeout=1", [FIRST], "input_timeout_exceeded", "1 s"),
        ("&inactivity_timeout=181", [], "invalid_value", "180"),
        ("&enable_ssml_parsing=true", [], "invalid_value", "enable_ssml_parsing"),
        ("&colour=red", [], "unknown_field", "inactivity_timeout"),
        ("&model_id=gpt", [FIRST], "model_not_found", CUSTOM),
        ("&language_code=xx", [FIRST], "unsupported_language", "de"),
        ("&output_format=wav_24000", [FIRST], "invalid_output_format", "pcm"),
    ],
)
def test_what_is_refused(service: Service, query: str, messages: list[Any], error: str, word: str) -> None:
    with calling(service, query) as call:
        with suppress(ConnectionClosed):  # the server may refuse it before all of it was sent
            for message in messages:
                call.socket.send(json.dumps(message) if isinstance(message, dict) else message)
        assert call.close_code() == 1008
    last = call.heard[-1]
    assert (set(last), last["code"], last["error"]) == ({"message", "error", "code"}, 1008, error), last
    assert word in last["message"]
    assert "Traceback" not in last["message"]
    wait_until_idle(service)
