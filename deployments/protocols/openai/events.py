"""Speech as server-sent events: OpenAI's `speech.audio.*`, with what vLLM-Omni adds to them."""

import base64
import json
from collections.abc import AsyncIterator, Mapping

from deployments.errors import to_http_error
from deployments.http.request_log import note_finish
from deployments.protocols.openai.answers import usage_object
from deployments.wire.streams import PcmStream

MEDIA_TYPE = "text/event-stream"


async def speech_events(
    audio: AsyncIterator[bytes], audio_format: str, stream: PcmStream, text: str, speed: float
) -> AsyncIterator[bytes]:
    """An event for every piece of `audio`, a file of that format made of `stream`, and one of how it ended: with the
    pieces of `text` and when they are heard at `speed`."""
    try:
        async for piece in audio:
            encoded = base64.b64encode(piece).decode()
            yield _event({"type": "speech.audio.delta", "audio": encoded, "response_format": audio_format})
    except Exception as error:  # whatever it was, the status line is gone: this is its answer
        note_finish("error")
        yield _event({"type": "speech.audio.error", "error": to_http_error(error).error})
        return
    last = stream.last
    assert last.usage is not None, "the last chunk of a stream has its usage"
    usage = usage_object(last.usage).model_dump()
    segments = [
        {
            "text": text[timing.start : timing.end],
            "start_ms": round(timing.start_ms / speed),
            "end_ms": round(timing.end_ms / speed),
        }
        for timing in stream.timings
    ]
    yield _event(
        {"type": "speech.audio.done", "usage": usage, "finish_reason": last.finish_reason, "segments": segments}
    )


def _event(event: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
