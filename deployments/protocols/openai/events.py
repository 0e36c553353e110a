"""Speech as server-sent events: OpenAI's `speech.audio.*`, with the fields that vLLM-Omni adds."""

import base64
import json
from collections.abc import AsyncIterator, Mapping

from deployments.errors import refusal_of
from deployments.http.request_log import note_finish
from deployments.http.responses import StreamedBody
from deployments.protocols.openai.answers import usage_object
from deployments.speech.encoding import EncodedSpeech

MEDIA_TYPE = "text/event-stream"
# Proxies on the way must not collect events.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def speech_events(text: str) -> StreamedBody:
    """Return the body of an answer that sends the speech of `text` as events.

    Each piece of the file is an event. The last event has the finish reason and the times of each piece of `text`.
    """

    async def events(audio: AsyncIterator[bytes], speech: EncodedSpeech) -> AsyncIterator[bytes]:
        try:
            async for piece in audio:
                encoded = base64.b64encode(piece).decode()
                audio_format = speech.output.audio_format
                yield _event({"type": "speech.audio.delta", "audio": encoded, "response_format": audio_format})
        except Exception as error:  # the status line has been sent: this event is the answer to any error
            note_finish("error")
            yield _event({"type": "speech.audio.error", "error": refusal_of(error).error})
            return
        yield _event(_done(text, speech))

    return StreamedBody(MEDIA_TYPE, events, _HEADERS)


def _done(text: str, speech: EncodedSpeech) -> dict[str, object]:
    speed = speech.output.speed
    segments = [
        {
            "text": text[timing.start : timing.end],
            "start_ms": round(timing.start_ms / speed),
            "end_ms": round(timing.end_ms / speed),
        }
        for timing in speech.timings
    ]
    usage = usage_object(speech.usage).model_dump()
    return {
        "type": "speech.audio.done",
        "usage": usage,
        "finish_reason": speech.finish_reason,
        "segments": segments,
    }


def _event(event: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
