"""However an answer ends, its producer is cancelled and its encoder freed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from deployments.audio.encoder import AudioEncoder
from deployments.http.responses import audio_file, file_response, stream_response
from deployments.wire.messages import AudioChunk, Usage
from deployments.wire.streams import ResponseStream

PCM = bytes(2 * 1920)


class Chunks:
    """A stream of two chunks that can be held back or break."""

    def __init__(self, error: Exception | None = None) -> None:
        self.cancelled = False
        self._error = error
        self.asked = asyncio.Event()
        self._chunks = self._produce()

    async def _produce(self) -> AsyncIterator[AudioChunk]:
        yield AudioChunk(PCM, None)
        self.asked.set()
        if self._error is not None:
            raise self._error
        yield AudioChunk(PCM, "stop", Usage(3, 0, 2))

    def __aiter__(self) -> AsyncIterator[AudioChunk]:
        return self._chunks

    async def __anext__(self) -> AudioChunk:
        return await anext(self._chunks)

    def cancel(self) -> None:
        self.cancelled = True


def freed(encoder: AudioEncoder) -> bool:
    return encoder.encode(PCM) == encoder.finish() == b""


async def test_a_whole_file() -> None:
    chunks, encoder = Chunks(), AudioEncoder("pcm", 24000, whole=True)
    file = await audio_file(cast("ResponseStream", chunks), encoder)
    assert (file.content, file.finish_reason, file.usage.frames) == (2 * PCM, "stop", 2)
    assert chunks.cancelled
    assert freed(encoder)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_on_the_way(stream: bool) -> None:
    chunks, encoder = Chunks(ValueError("broken")), AudioEncoder("opus", 24000, whole=not stream)
    sent: list[dict[str, object]] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    async def answer() -> None:
        source = cast("ResponseStream", chunks)
        if stream:
            response = await stream_response(source, encoder, {})
        else:
            response = file_response(await audio_file(source, encoder), {})
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    with pytest.raises(ValueError, match="broken"):
        await answer()
    assert [message["type"] for message in sent][:1] == (["http.response.start"] if stream else [])
    assert all(message.get("more_body", True) for message in sent), "a body that is cut does not look complete"
    assert chunks.cancelled
    assert freed(encoder)


async def test_a_listener_who_leaves() -> None:
    chunks, encoder = Chunks(), AudioEncoder("mp3", 24000)
    response = await stream_response(cast("ResponseStream", chunks), encoder, {})
    assert not chunks.cancelled

    async def send(message: object) -> None:
        raise OSError

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with contextlib.suppress(Exception):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert chunks.cancelled
    assert freed(encoder)
