"""Audio chunks -> HTTP bodies."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.audio.encoder import AudioEncoder
from deployments.http.request_log import note_finish
from deployments.protocols.openai import events as sse
from deployments.wire.messages import Usage
from deployments.wire.streams import PcmStream, ResponseStream, Room, cancel
from qwen_tts.request import FinishReason


@dataclass(frozen=True)
class AudioFile:
    """A whole utterance."""

    content: bytes
    media_type: str
    sample_rate_hz: int
    finish_reason: FinishReason
    usage: Usage


async def audio_file(chunks: ResponseStream, encoder: AudioEncoder, room: Room | None = None) -> AudioFile:
    """All of `chunks` as a file, which may be as large as there is `room`. However it ends, `chunks` is cancelled and
    `encoder` freed."""
    file, stream = bytearray(), PcmStream(chunks)
    try:
        async for piece in encoded(stream, encoder, room):
            file += piece
    finally:
        cancel(chunks)
    last = stream.last
    assert last.finish_reason is not None
    assert last.usage is not None
    return AudioFile(bytes(file), encoder.media_type, encoder.sample_rate_hz, last.finish_reason, last.usage)


def file_response(file: AudioFile, headers: dict[str, str]) -> Response:
    """A whole file, with why it ended and its usage, also under vLLM-Omni's names."""
    usage = file.usage
    counts = {"Input": usage.input_tokens, "Output": usage.frames, "Total": usage.input_tokens + usage.frames}
    details = {"Input-Text": usage.text_tokens, "Input-Audio": usage.reference_frames}
    headers = {**headers, "X-Sample-Rate": str(file.sample_rate_hz), "X-Finish-Reason": file.finish_reason}
    headers |= {f"X-{name}-Tokens": str(count) for name, count in counts.items()}
    headers |= {f"X-Vllm-Omni-{name}-Tokens": str(count) for name, count in (counts | details).items()}
    return Response(file.content, media_type=file.media_type, headers=headers)


async def stream_response(
    chunks: ResponseStream, encoder: AudioEncoder, headers: dict[str, str], events_of: str | None = None
) -> Response:
    """Audio as it comes, as bytes, or, with the text that is spoken, as server-sent events.

    Awaits the first chunk, so what the request can be refused for is raised here. `chunks` is cancelled and `encoder`
    freed when the response ends, however it ends.
    """
    stream = PcmStream(chunks)
    pieces = encoded(stream, encoder)
    try:
        first = await anext(pieces)
    except BaseException:
        cancel(chunks)
        raise
    headers = {**headers, "X-Sample-Rate": str(encoder.sample_rate_hz)}
    audio = _audio(first, pieces, stream)
    if events_of is None:
        return _AudioStream(audio, pieces, chunks, encoder.media_type, headers)
    # What stands between must not collect events.
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    body = sse.speech_events(audio, encoder.audio_format, stream, events_of, encoder.speed)
    return _AudioStream(body, pieces, chunks, sse.MEDIA_TYPE, headers)


async def encoded(stream: PcmStream, encoder: AudioEncoder, room: Room | None = None) -> AsyncGenerator[bytes]:
    """Pieces of a file (some are empty), one for each chunk and the rest. Encodes in threads: a second of audio takes
    some ms. `encoder` is freed at the end."""
    try:
        async for pcm in stream:
            if room is not None:
                room.take(len(pcm))
            yield await asyncio.to_thread(encoder.encode, pcm)
        yield await asyncio.to_thread(encoder.finish)
    finally:
        encoder.close()


class _AudioStream(StreamingResponse):
    """Ends `pieces` and `chunks` when sending ends, even where the client left before the body was started."""

    def __init__(
        self,
        body: AsyncIterator[bytes],
        pieces: AsyncGenerator[bytes],
        chunks: ResponseStream,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._pieces = pieces
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            cancel(self._chunks)
            await self._pieces.aclose()


async def _audio(first: bytes, rest: AsyncIterator[bytes], stream: PcmStream) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        if piece:
            yield piece
    assert stream.last.finish_reason is not None
    note_finish(stream.last.finish_reason)
