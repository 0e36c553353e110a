"""Models that have loaded, and streams that a codec decoder would give."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from ray.serve.handle import DeploymentHandle

from deployments.speech.admission import Admission
from deployments.speech.speech_streams import SpeechStreams
from deployments.speech.terms import Terms
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.models import Models
from qwen_tts.config import GenerationDefaults
from qwen_tts.request import SpeechRequest

TERMS = Terms("interactive", 600.0, b"a caller")
ANY = ModelCard("any", "custom_voice", (), ("english",), GenerationDefaults(), 24000, 300)


async def loaded(*cards: ModelCard) -> Models:
    """The models of these cards, or of any one card."""

    async def describe() -> list[ModelCard]:
        return list(cards or (ANY,))

    models = Models(describe)
    await models.load()
    return models


class Stream:
    """A response stream: chunks or errors in turn, after `until` where one is given; for ever where there are none."""

    def __init__(
        self, chunks: Sequence[AudioChunk | Exception] | None = None, until: asyncio.Event | None = None
    ) -> None:
        self._chunks = None if chunks is None else iter(chunks)
        self._until = until
        self.cancelled = False

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> AudioChunk:
        await asyncio.sleep(0)
        if self._until is not None:
            await self._until.wait()
        if self._chunks is None:
            return AudioChunk(b"\0\0", None)
        found = next(self._chunks, None)
        if found is None:
            raise StopAsyncIteration
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self) -> None:
        self.cancelled = True


def decoder(synthesize: Callable[..., Stream]) -> DeploymentHandle[Any]:
    """A handle of the codec decoder whose calls `synthesize(model, request=, rest=, frames=, caller=)` answers."""
    call = SimpleNamespace(synthesize=SimpleNamespace(remote=synthesize))
    return cast("DeploymentHandle[Any]", SimpleNamespace(options=lambda *, stream: call))


def streams(handle: DeploymentHandle[Any]) -> SpeechStreams:
    """The streams of this decoder, with places of their own."""
    return SpeechStreams(handle, Admission(), 5.0)


async def collected(chunks: AsyncIterator[AudioChunk]) -> tuple[bytes, AudioChunk]:
    """All audio of a stream, and its last chunk."""
    found = [chunk async for chunk in chunks]
    return b"".join(chunk.pcm for chunk in found), found[-1]


class Spoken:
    """A decoder that speaks `chunks` for every request, and keeps the requests."""

    def __init__(self, chunks: Callable[[SpeechRequest], Sequence[AudioChunk | Exception] | None]) -> None:
        self._chunks = chunks
        self.requests: list[tuple[str, SpeechRequest]] = []
        self.streams: list[Stream] = []
        self.handle = decoder(self._synthesize)

    def _synthesize(self, model: str, request: SpeechRequest, rest: object, frames: object, caller: None) -> Stream:
        self.requests.append((model, request))
        self.streams.append(Stream(self._chunks(request)))
        return self.streams[-1]
