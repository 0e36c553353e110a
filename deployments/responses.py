"""Audio chunks -> HTTP bodies."""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi.responses import Response, StreamingResponse

from deployments.messages import AudioChunk
from deployments.response_stream import ResponseStream, cancel
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
    try:
        first: AudioChunk = await anext(chunks)
        if stream:
            header = wav_header(sample_rate_hz, None) if audio_format == "wav" else b""
            body = _stream(header + first.pcm, chunks)
            return StreamingResponse(body, media_type=media_type, headers=headers)
        pcm, last = bytearray(first.pcm), first
        async for last in chunks:
            pcm += last.pcm
        header = wav_header(sample_rate_hz, len(pcm)) if audio_format == "wav" else b""
        headers = {**headers, "X-Finish-Reason": str(last.finish_reason)}
        return Response(header + bytes(pcm), media_type=media_type, headers=headers)
    except BaseException:
        cancel(chunks)
        raise


async def _stream(first: bytes, chunks: ResponseStream) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in chunks:
            if chunk.pcm:
                yield chunk.pcm
    finally:
        cancel(chunks)
