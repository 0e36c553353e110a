"""At any end of an answer its speech is stopped and its encoder is freed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from deployments.audio.encoder import AudioEncoder, AudioFormat
from deployments.http.responses import audio_file, file_response, stream_response
from deployments.speech.encoding import AudioOutput, EncodedSpeech, SpeechEncoding
from deployments.wire.messages import AudioChunk, Usage

PCM = bytes(2 * 1920)


class Opened:
    """Speech of two chunks, or of one chunk and an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.stopped = False
        self._error = error

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[AudioChunk]]:
        try:
            yield self._chunks()
        finally:
            self.stopped = True

    async def _chunks(self) -> AsyncIterator[AudioChunk]:
        yield AudioChunk(PCM, None)
        if self._error is not None:
            raise self._error
        yield AudioChunk(PCM, "stop", Usage(3, 0, 2))


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> list[AudioEncoder]:
    """The encoders that are made during the test."""
    made: list[AudioEncoder] = []
    make = AudioEncoder.__init__

    def noted(self: AudioEncoder, *args: object, **options: object) -> None:
        make(self, *args, **options)  # type: ignore[arg-type]  # passed on
        made.append(self)

    monkeypatch.setattr(AudioEncoder, "__init__", noted)
    return made


def freed(encoders: list[AudioEncoder]) -> bool:
    assert encoders
    return all(encoder.encode(PCM) == encoder.finish() == b"" for encoder in encoders)


def encoded(opened: Opened, audio_format: AudioFormat, *, whole: bool) -> AbstractAsyncContextManager[EncodedSpeech]:
    output = AudioOutput(audio_format, 24000, None, 1.0)
    return SpeechEncoding(10**9).open(opened(), output, whole=whole)


async def test_a_whole_file(encoders: list[AudioEncoder]) -> None:
    opened = Opened()
    file = await audio_file(encoded(opened, "pcm", whole=True))
    assert (file.content, file.finish_reason, file.usage.frames) == (2 * PCM, "stop", 2)
    assert opened.stopped
    assert freed(encoders)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_on_the_way(stream: bool, encoders: list[AudioEncoder]) -> None:
    opened = Opened(ValueError("broken"))
    sent: list[dict[str, object]] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    async def answer() -> None:
        opening = encoded(opened, "opus", whole=not stream)
        response = await stream_response(opening, {}) if stream else file_response(await audio_file(opening), {})
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    with pytest.raises(ValueError, match="broken"):
        await answer()
    assert [message["type"] for message in sent][:1] == (["http.response.start"] if stream else [])
    assert all(message.get("more_body", True) for message in sent), "a body that is cut looks complete"
    assert opened.stopped
    assert freed(encoders)


async def test_an_error_before_the_first_piece_frees_everything(encoders: list[AudioEncoder]) -> None:
    @asynccontextmanager
    async def refused() -> AsyncIterator[AsyncIterator[AudioChunk]]:
        raise RuntimeError("refused")
        yield

    opening = SpeechEncoding(10**9).open(refused(), AudioOutput("mp3", 24000, None, 1.0), whole=False)
    with pytest.raises(RuntimeError, match="refused"):
        await stream_response(opening, {})
    assert freed(encoders)


async def test_a_listener_who_leaves(encoders: list[AudioEncoder]) -> None:
    opened = Opened()
    response = await stream_response(encoded(opened, "mp3", whole=False), {})
    assert not opened.stopped

    async def send(message: object) -> None:
        raise OSError

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with contextlib.suppress(Exception):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert opened.stopped
    assert freed(encoders)
