"""HTTP answers made of encoded speech."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.http.request_log import note_finish
from deployments.speech.encoding import EncodedSpeech
from deployments.wire.messages import Usage
from qwen_tts.request import FinishReason


@dataclass(frozen=True)
class AudioFile:
    """A whole audio file, with the facts for its headers."""

    content: bytes
    media_type: str
    sample_rate_hz: int
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True)
class StreamedBody:
    """A streamed body that is not the audio itself. `make` makes it of the pieces that are not empty."""

    media_type: str
    make: Callable[[AsyncIterator[bytes], EncodedSpeech], AsyncIterator[bytes]]
    headers: Mapping[str, str]


async def audio_file(opening: AbstractAsyncContextManager[EncodedSpeech]) -> AudioFile:
    """Return all of the speech as a file."""
    async with opening as speech:
        content = b"".join([piece async for piece in speech])
        return AudioFile(content, speech.media_type, speech.output.rate_hz, speech.finish_reason, speech.usage)


def file_response(file: AudioFile, headers: Mapping[str, str]) -> Response:
    """Return a whole file, with its finish reason and its usage in headers, also under vLLM-Omni's names."""
    usage = file.usage
    counts = {"Input": usage.input_tokens, "Output": usage.frames, "Total": usage.input_tokens + usage.frames}
    details = {"Input-Text": usage.text_tokens, "Input-Audio": usage.reference_frames}
    all_headers = {**headers, "X-Sample-Rate": str(file.sample_rate_hz), "X-Finish-Reason": file.finish_reason}
    all_headers |= {f"X-{name}-Tokens": str(count) for name, count in counts.items()}
    all_headers |= {f"X-Vllm-Omni-{name}-Tokens": str(count) for name, count in (counts | details).items()}
    return Response(file.content, media_type=file.media_type, headers=all_headers)


async def stream_response(
    opening: AbstractAsyncContextManager[EncodedSpeech],
    headers: Mapping[str, str],
    body: StreamedBody | None = None,
) -> Response:
    """Return an answer that sends the speech as it is made: its pieces, or `body` made of them.

    The first piece is awaited here, so that an error of the request is raised here, before the status line is sent. The
    speech is stopped at any end of the answer.
    """
    async with AsyncExitStack() as stack:
        speech = await stack.enter_async_context(opening)
        first = await anext(speech)
        owner = stack.pop_all()
    audio = _audio(first, speech)
    all_headers = {**headers, "X-Sample-Rate": str(speech.output.rate_hz)}
    if body is None:
        return _SpeechResponse(audio, owner, speech.media_type, all_headers)
    return _SpeechResponse(body.make(audio, speech), owner, body.media_type, all_headers | dict(body.headers))


class _SpeechResponse(StreamingResponse):
    """Closes `owner` when sending ends, even where the client left before the body was started."""

    def __init__(
        self, body: AsyncIterator[bytes], owner: AsyncExitStack, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._owner:
            await super().__call__(scope, receive, send)


async def _audio(first: bytes, speech: EncodedSpeech) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in speech:
        if piece:
            yield piece
    note_finish(speech.finish_reason)
