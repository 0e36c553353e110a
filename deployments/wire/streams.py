"""Calls that stream between deployments: opened, iterated with `async for` or `anext`, and cancelled by the caller.

Leaving a loop over a Serve response stream does not stop its producer, so every holder of a stream ends with
`finally: cancel(stream)`.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol, Self, cast

from ray.serve.handle import DeploymentHandle

from deployments.errors import HttpError
from deployments.wire.messages import AudioChunk, TextTiming


class ResponseStream(Protocol):
    """What we ask of Serve's DeploymentResponseGenerator."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def __anext__(self) -> Any: ...  # noqa: ANN401  # FrameChunks of a talker, AudioChunks of a decoder

    def cancel(self) -> None: ...


def open_stream(handle: DeploymentHandle[Any], method: str, *args: object) -> ResponseStream:
    """Call the streaming `method` of a deployment."""
    return cast("ResponseStream", getattr(handle.options(stream=True), method).remote(*args))


class PcmStream:
    """The samples of a stream of AudioChunks, piece by piece. `last` is its last chunk, which says how it ended;
    `timings` say what was spoken when, as far as that has come."""

    def __init__(self, chunks: AsyncIterator[AudioChunk]) -> None:
        self._chunks = chunks
        self._last: AudioChunk | None = None
        self.timings: list[TextTiming] = []

    @property
    def last(self) -> AudioChunk:
        assert self._last is not None, "the last chunk of a stream says why it ended"
        return self._last

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        if chunk.finish_reason is not None:
            self._last = chunk
        if chunk.timing is not None:
            self.timings.append(chunk.timing)
        return chunk.pcm


class Room:
    """Bytes of audio that may still be collected, by all who share it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left = size_bytes

    def take(self, size_bytes: int) -> None:
        """Raises HttpError."""
        self._left -= size_bytes
        if self._left < 0:
            message = f"together the items would come to more than {self._size_bytes} bytes of audio; send fewer"
            raise HttpError(413, message, code="batch_too_large")


async def collect(chunks: ResponseStream) -> tuple[bytes, AudioChunk]:
    """All audio of a stream of AudioChunks as 16-bit PCM, and its last chunk. The stream is cancelled if this fails."""
    pcm, stream = bytearray(), PcmStream(chunks)
    try:
        async for piece in stream:
            pcm += piece
    except BaseException:
        cancel(chunks)
        raise
    return bytes(pcm), stream.last


def cancel(stream: ResponseStream) -> None:
    """Stop the producer. Harmless when it has ended."""
    stream.cancel()
