"""Server-sent events of a stream that ends, and of one that fails."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deployments.protocols.openai.events import speech_events
from deployments.speech.encoding import AudioOutput, SpeechEncoding
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from qwen_tts.errors import EngineStopped, RequestFailed


async def chunks(*items: AudioChunk | Exception) -> AsyncIterator[AudioChunk]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def events(*items: AudioChunk | Exception) -> list[dict[str, Any]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[AudioChunk]]:
        yield chunks(*items)

    body, output = speech_events("One. Two."), AudioOutput("pcm", 24000, None, 2.0)
    async with SpeechEncoding(10**9).open(opened(), output, whole=False) as speech:
        return [json.loads(event.removeprefix(b"data: ")) async for event in body.make(speech, speech)]


async def test_pieces_and_then_the_usage() -> None:
    *pieces, done = await events(
        AudioChunk(bytes(4800), None, timing=TextTiming(0, 4, 0, 600)),
        AudioChunk(bytes(4800), "stop", Usage(3, 4, 5), TextTiming(5, 9, 850, 1451)),
    )
    audio = b"".join(base64.b64decode(event["audio"]) for event in pieces)
    assert len(audio) == pytest.approx(4800, abs=400), "twice as fast"
    assert {event["type"] for event in pieces} == {"speech.audio.delta"}
    assert done == {
        "type": "speech.audio.done",
        "usage": {
            "input_tokens": 7,
            "output_tokens": 5,
            "total_tokens": 12,
            "input_token_details": {"text_tokens": 3, "audio_tokens": 4},
        },
        "finish_reason": "stop",
        "segments": [
            {"text": "One.", "start_ms": 0, "end_ms": 300},
            {"text": "Two.", "start_ms": 425, "end_ms": 726},
        ],
    }


async def test_a_failure_is_the_last_event_and_shows_nothing_inside() -> None:
    for failure, code in (
        (EngineStopped("x"), "replica_failed"),
        (RequestFailed("x"), "request_failed"),
        (RuntimeError("secret"), "internal_error"),
    ):
        *_, last = await events(AudioChunk(b"ab", None), failure)
        assert last["type"] == "speech.audio.error"
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", code)
        assert "secret" not in json.dumps(last)
