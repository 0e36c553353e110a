"""vLLM-Omni's WebSocket messages, on plain sockets."""

import base64
import itertools
import json
import wave
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.serve.calls import FRAME_BYTES, PATIENCE_S
from tests.serve.conftest import Service
from tests.serve.test_dashscope_client import LONG, differences, said
from tests.serve.test_openai_client import wait_until_idle

CONFIG = {"type": "session.config", "voice": "ryan", "seed": 1, "max_new_tokens": 5}
PCM = {"response_format": "pcm", "stream_audio": True}


class Call:
    """One connection. `heard` has its events in order, with the bytes of each binary message between them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Any] = []

    def send(self, **event: object) -> None:
        self.socket.send(json.dumps(event))

    def say(self, *texts: str) -> None:
        for text in texts:
            self.send(type="input.text", text=text)
        self.send(type="input.done")

    def receive(self) -> Any:
        message = self.socket.recv(timeout=PATIENCE_S)
        self.heard.append(message if isinstance(message, bytes) else json.loads(message))
        return self.heard[-1]

    def utterance(self) -> list[Any]:
        """Return all messages to the end of an utterance."""
        begin = len(self.heard)
        while isinstance(event := self.receive(), bytes) or event["type"] != "session.done":
            pass
        return self.heard[begin:]

    def close_code(self) -> int | None:
        with suppress(ConnectionClosed):
            while True:
                self.receive()
        return self.socket.close_code


@contextmanager
def calling(service: Service, **config: object) -> Iterator[Call]:
    with connect(service.url.replace("http", "ws") + "/v1/audio/speech/stream", proxy=None) as socket:
        call = Call(socket)
        if config:
            call.send(**config)
        yield call


def audio(heard: list[Any]) -> bytes:
    return b"".join(message for message in heard if isinstance(message, bytes))


def events(heard: list[Any]) -> list[Any]:
    return [message for message in heard if isinstance(message, dict)]


def test_sentences_are_files_and_utterances_follow_each_other(service: Service, client: httpx.Client) -> None:
    with calling(service, **CONFIG) as call:
        call.send(type="input.text", text="One two. Thr")
        start = call.receive()  # while the second sentence is being written
        assert start == {
            "type": "audio.start",
            "utterance_index": 0,
            "sentence_index": 0,
            "sentence_text": "One two.",
            "format": "wav",
            "sample_rate": 24000,
            "channels": 1,
        }
        call.say("ee.")
        call.utterance()
        first, second = [message for message in call.heard if isinstance(message, bytes)]
        ends = [(event["sentence_index"], event["error"]) for event in call.heard[2::3]]
        assert ends == [(0, False), (1, False)]
        assert call.heard[-1] == {"type": "session.done", "utterance_index": 0, "total_sentences": 2}
        for file, text in ((first, "One two."), (second, "Three.")):
            assert call.heard[call.heard.index(file) + 1]["total_bytes"] == len(file)
            with wave.open(BytesIO(file)) as sound:
                assert differences(sound.readframes(99999), said(client, text)) <= 1
        call.send(**CONFIG | {"split_granularity": "clause", "response_format": "pcm"})
        call.say("One, two. Three")
        starts = [event["sentence_text"] for event in events(call.utterance()) if "sentence_text" in event]
        assert starts == ["One,", "two.", "Three"]
        assert call.heard[-1]["utterance_index"] == 1
        call.send(type="session.close")
        assert call.close_code() == 1000


@pytest.mark.parametrize("stream_audio", [True, False])
def test_an_utterance_that_is_not_split(service: Service, client: httpx.Client, stream_audio: bool) -> None:
    config = CONFIG | PCM | {"split_granularity": "none", "stream_audio": stream_audio}
    with calling(service, **config) as call:
        for utterance in range(2):
            begin = len(call.heard)
            call.send(type="input.text", text="One. T")
            while stream_audio and not audio(call.heard[begin:]):
                call.receive()  # before the text has ended
            call.say("wo.")
            call.utterance()
            heard = call.heard[begin:]
            start, *_, end, done = events(heard)
            assert (start["sentence_text"], start["format"]) == ("" if stream_audio else "One. Two.", "pcm")
            assert (end["total_bytes"], end["error"], done["total_sentences"]) == (5 * FRAME_BYTES, False, 1)
            assert done["utterance_index"] == utterance
            assert (len(heard) > 4) == stream_audio
            assert differences(audio(heard), said(client, "One. Two.", non_streaming_mode=not stream_audio)) <= 1
        call.say()
        assert call.utterance() == [{"type": "session.done", "utterance_index": 2, "total_sentences": 0}]


def test_there_are_no_timestamps(service: Service) -> None:
    with calling(service, **CONFIG | PCM, word_timestamps=True) as call:
        call.say("One.")
        heard = call.utterance()
        chunks = [event for event in heard if event["type"] == "audio.chunk"]
        assert {event["timestamps"] for event in chunks} == {None}
        assert [event["chunk_id"] for event in chunks] == list(range(len(chunks)))
        assert chunks[0]["chunk_start_ms"] == 0
        for one, following in itertools.pairwise(chunks):
            assert following["chunk_start_ms"] == one["chunk_end_ms"]
        assert chunks[-1]["chunk_end_ms"] == 5 * 80
        assert len(b"".join(base64.b64decode(event["audio_b64"]) for event in chunks)) == 5 * FRAME_BYTES


@pytest.mark.parametrize("split", ["none", "sentence"])
def test_a_client_that_leaves_frees_its_slots(service: Service, split: str) -> None:
    with calling(service, **CONFIG | PCM | {"max_new_tokens": 3000, "split_granularity": split}) as call:
        call.say(LONG)
        call.receive()
        assert isinstance(call.receive(), bytes)
    wait_until_idle(service)


def test_numbers_are_spoken_as_words_where_asked_but_not_while_they_are_written(
    service: Service, client: httpx.Client
) -> None:
    words = {"normalize_text": True, "language": "english"}
    with calling(service, **CONFIG | PCM | words) as call:
        call.say("Now 21 more.")
        expected = said(client, "Now twenty-one more.", language="english")
        assert differences(audio(call.utterance()), expected) <= 1
        call.send(**CONFIG | PCM | words | {"split_granularity": "none"})
        call.say("21")
        assert [event.get("param") for event in events(call.utterance()) if event["type"] == "error"] == [
            "normalize_text"
        ]


def test_speech_that_fails_is_told_and_the_next_utterance_is_spoken(service: Service) -> None:
    config = CONFIG | PCM | {"language": "klingon", "split_granularity": "sentence"}
    with calling(service, **config) as call:
        call.say("One.")
        start, error, end, done = call.utterance()
        assert (error["type"], error["param"], end["error"]) == ("error", "language", True)
        assert (start["type"], done["total_sentences"]) == ("audio.start", 1)
        call.send(**CONFIG | PCM)
        call.say("One.")
        assert len(audio(call.utterance())) == 5 * FRAME_BYTES


def test_what_is_refused(service: Service) -> None:
    def refused(close: int, *messages: dict[str, object]) -> str:
        with calling(service) as call:
            for sent in messages:
                call.send(**sent)
            assert call.close_code() == close
            error = events(call.heard)[-1]
        assert error["type"] == "error"
        told: str = error["message"]
        assert "Traceback" not in told
        return told

    text: dict[str, object] = {"type": "input.text", "text": "One"}
    assert "session.config" in refused(1002, text)
    assert "ryan" in refused(1008, CONFIG | {"voice": "nobody"})
    assert "known fields" in refused(1008, CONFIG | {"colour": "red"})
    assert "known fields" in refused(1008, CONFIG | {"input": "One"})
    assert "pcm" in refused(1008, CONFIG | {"stream_audio": True})
    assert "split_granularity" in refused(1008, CONFIG | {"split_granularity": "word"})
    assert "temperature" in refused(1008, CONFIG | {"temperature": 9})
    assert "sample_rate" in refused(1008, CONFIG | {"sample_rate": 12345})
    assert "text" in refused(1008, CONFIG, {"type": "input.text", "text": 5})
    assert "input.done" in refused(1002, CONFIG, text, CONFIG)
    waiting: list[dict[str, object]] = [text, {"type": "input.done"}] * 9
    assert "waiting" in refused(1008, CONFIG | {"max_new_tokens": 3000}, *waiting)
    assert "not a known event" in refused(1002, CONFIG, {"type": "input.sing"})
    assert "after session.close" in refused(1002, CONFIG, text, {"type": "session.close"}, text)
    assert "characters" in refused(1009, CONFIG, text | {"text": "x" * 50_000})
    assert "bytes" in refused(1009, CONFIG, text | {"text": "x" * 140_000})
    assert "bytes" in refused(1009, CONFIG | {"instructions": "x" * 5_000_000})
    wait_until_idle(service)


@pytest.mark.parametrize(
    ("message", "close"), [(b"\0" * 100, 1002), ("hello", 1002), ("[1]", 1002), ("x" * 5_000_000, 1009), (None, 1008)]
)
def test_malformed_traffic_and_silence(service: Service, message: str | bytes | None, close: int) -> None:
    with calling(service) as call:
        if message is not None:
            call.socket.send(message)
        assert call.close_code() == close
        assert [event["type"] for event in call.heard] == ["error"]
