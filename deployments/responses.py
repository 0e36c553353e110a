"""Audio chunks -> HTTP bodies."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments import sse
from deployments.messages import Usage
from deployments.response_stream import PcmStream, ResponseStream, Room, cancel, collect
from qwen_tts.audio import wav_header
from qwen_tts.request import FinishReason

AudioFormat = Literal["wav", "pcm"]

MEDIA_TYPES: dict[AudioFormat, str] = {"wav": "audio/wav", "pcm": "audio/pcm"}


@dataclass(frozen=True)
class AudioFile:
    """A whole utterance."""

    content: bytes
    media_type: str
    finish_reason: FinishReason
    usage: Usage


async def audio_file(
    chunks: ResponseStream, audio_format: AudioFormat, sample_rate_hz: int, room: Room | None = None
) -> AudioFile:
    """All of `chunks` as a file, which may be as large as there is `room`. They are cancelled if this fails."""
    pcm, last = await collect(chunks, room)
    assert last.finish_reason is not None
    assert last.usage is not None
    header = wav_header(sample_rate_hz, len(pcm)) if audio_format == "wav" else b""
    return AudioFile(header + pcm, MEDIA_TYPES[audio_format], last.finish_reason, last.usage)


def file_response(file: AudioFile, headers: dict[str, str]) -> Response:
    """A whole file, with why it ended and its usage, also under vLLM-Omni's names."""
    usage = file.usage
    counts = {"Input": usage.input_tokens, "Output": usage.frames, "Total": usage.input_tokens + usage.frames}
    details = {"Input-Text": usage.text_tokens, "Input-Audio": usage.reference_frames}
    headers = {**headers, "X-Finish-Reason": file.finish_reason}
    headers |= {f"X-{name}-Tokens": str(count) for name, count in counts.items()}
    headers |= {f"X-Vllm-Omni-{name}-Tokens": str(count) for name, count in (counts | details).items()}
    return Response(file.content, media_type=file.media_type, headers=headers)


async def stream_response(
    chunks: ResponseStream, audio_format: AudioFormat, sample_rate_hz: int, headers: dict[str, str], *, events: bool
) -> Response:
    """Audio as it comes, as bytes or as server-sent events.

    Awaits the first chunk, so what the request can be refused for is raised here. `chunks` is cancelled when the
    response ends, however it ends.
    """
    stream = PcmStream(chunks)
    try:
        first = await anext(stream)
    except BaseException:
        cancel(chunks)
        raise
    header = wav_header(sample_rate_hz, None) if audio_format == "wav" else b""
    audio = _audio(header + first, stream)
    if not events:
        return _AudioStream(audio, chunks, MEDIA_TYPES[audio_format], headers)
    # What stands between must not collect events.
    headers = {**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return _AudioStream(sse.speech_events(audio, audio_format, stream), chunks, sse.MEDIA_TYPE, headers)


class _AudioStream(StreamingResponse):
    """Cancels `chunks` when sending ends, even where the client left before the body's generator was started."""

    def __init__(
        self, body: AsyncIterator[bytes], chunks: ResponseStream, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            cancel(self._chunks)


async def _audio(first: bytes, rest: PcmStream) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for pcm in rest:
        if pcm:
            yield pcm
