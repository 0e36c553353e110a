"""Calls that stream between deployments: opened, iterated with `async for` or `anext`, and cancelled by the caller.

Leaving a loop over a Serve response stream does not stop its producer, so every holder of a stream ends with
`finally: cancel(stream)`.
"""

from typing import Any, TypeAlias, cast

from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.messages import AudioChunk
from qwen_tts.request import FinishReason

ResponseStream: TypeAlias = DeploymentResponseGenerator[Any]


def open_stream(handle: DeploymentHandle[Any], method: str, *args: object) -> ResponseStream:
    """Call the streaming `method` of a deployment."""
    return cast("ResponseStream", getattr(handle.options(stream=True), method).remote(*args))


async def collect(chunks: ResponseStream) -> tuple[bytes, FinishReason]:
    """All audio of a stream of AudioChunks as 16-bit PCM, and why it ended. The stream is cancelled if this fails."""
    pcm = bytearray()
    try:
        chunk: AudioChunk
        async for chunk in chunks:
            pcm += chunk.pcm
    except BaseException:
        cancel(chunks)
        raise
    assert chunk.finish_reason is not None, "the last chunk of a stream says why it ended"
    return bytes(pcm), chunk.finish_reason


def cancel(stream: ResponseStream) -> None:
    """Stop the producer. Harmless when it has ended."""
    stream.cancel()  # type: ignore[no-untyped-call]
