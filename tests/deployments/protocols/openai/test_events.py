"""Server-sent events of a stream that ends, and of one that fails."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from deployments.protocols.openai.events import speech_events
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from deployments.wire.streams import PcmStream
from qwen_tts.errors import EngineStopped


async def chunks(*items: AudioChunk | Exception) -> AsyncIterator[AudioChunk]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def events(*items: AudioChunk | Exception) -> list[dict[str, Any]]:
    source: Any = chunks(*items)
    stream = PcmStream(source)
    return [
        json.loads(event.removeprefix(b"data: "))
        async for event in speech_events(stream, "pcm", stream, "One. Two.", 2.0)
    ]


async def test_pieces_and_then_the_usage() -> None:
    one, two, done = await events(
        AudioChunk(b"ab", None, timing=TextTiming(0, 4, 0, 600)),
        AudioChunk(b"cd", "stop", Usage(3, 4, 5), TextTiming(5, 9, 850, 1451)),
    )
    assert [base64.b64decode(event["audio"]) for event in (one, two)] == [b"ab", b"cd"]
    assert {event["type"] for event in (one, two)} == {"speech.audio.delta"}
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
    for failure, code in ((EngineStopped("x"), "replica_failed"), (RuntimeError("secret"), "internal_error")):
        *_, last = await events(AudioChunk(b"ab", None), failure)
        assert last["type"] == "speech.audio.error"
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", code)
        assert "secret" not in json.dumps(last)
