"""Audio chunks -> HTTP bodies."""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.messages import AudioChunk
from deployments.response_stream import ResponseStream, cancel, collect
from qwen_tts.audio import wav_header

AudioFormat = Literal["wav", "pcm"]

_MEDIA_TYPES: dict[AudioFormat, str] = {"wav": "audio/wav", "pcm": "audio/pcm"}


async def audio_response(
    chunks: ResponseStream, audio_format: AudioFormat, sample_rate_hz: int, headers: dict[str, str], *, stream: bool
) -> Response:
    """The answer to a speech request, `chunks` being its audio: sent as it comes, or collected first.

    Awaits the first chunk either way, so what the request can be refused for is raised here. `chunks` is cancelled
    when the response ends, however it ends.
    """
    media_type = _MEDIA_TYPES[audio_format]
    if not stream:
        pcm, finish_reason = await collect(chunks)
        header = wav_header(sample_rate_hz, len(pcm)) if audio_format == "wav" else b""
        return Response(header + pcm, media_type=media_type, headers={**headers, "X-Finish-Reason": finish_reason})
    try:
        first: AudioChunk = await anext(chunks)
    except BaseException:
        cancel(chunks)
        raise
    header = wav_header(sample_rate_hz, None) if audio_format == "wav" else b""
    return _AudioStream(header + first.pcm, chunks, media_type, headers)


class _AudioStream(StreamingResponse):
    """Cancels `chunks` when sending ends, even where the client left before the body's generator was started."""

    def __init__(self, first: bytes, chunks: ResponseStream, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(_pcm(first, chunks), media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            cancel(self._chunks)


async def _pcm(first: bytes, chunks: ResponseStream) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        if chunk.pcm:
            yield chunk.pcm
