"""What adapters of WebSocket protocols speak with: an order once it is checked, then one text after the other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from deployments.audio.encoder import AudioEncoder, AudioFormat
from deployments.http.responses import encoded
from deployments.speech.live_speech import LiveSpeech
from deployments.speech.utterance import Utterance
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.streams import PcmStream
from qwen_tts.request import FinishReason, SpeechRequest


@dataclass(frozen=True)
class Order:
    """An Utterance that was checked: who speaks, how, and into what kind of file. Its text stands in for those to come;
    they have one seed, which is drawn here unless it was given."""

    card: ModelCard
    request: SpeechRequest
    audio_format: AudioFormat
    sample_rate_hz: int
    speed: float
    normalize_text: bool

    def encoder(self, *, whole: bool = False) -> AudioEncoder:
        """Raises InvalidRequest."""
        return AudioEncoder(self.audio_format, self.card.sample_rate_hz, self.sample_rate_hz, self.speed, whole=whole)


class Speech(Protocol):
    """A stream of AudioChunks."""

    def __aiter__(self) -> AsyncIterator[AudioChunk]: ...

    def cancel(self) -> object: ...


class Speaker(Protocol):
    """The edge, as protocols see it. All of it raises what a caller is told."""

    async def order(self, body: Utterance) -> Order: ...

    async def has_model(self, name: str) -> bool: ...

    async def speak(self, order: Order, text: str) -> Speech: ...

    def speak_live(self, order: Order) -> LiveSpeech: ...


class PendingText:
    """A text that may be taken down before its turn has come. It ends once."""

    def __init__(self) -> None:
        self.characters = 0
        self.ended = False
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def append(self, text: str) -> None:
        assert not self.ended, "text after its end"
        self.characters += len(text)
        self._pieces.put_nowait(text)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._pieces.put_nowait(None)

    async def write_to(self, speech: LiveSpeech, pause_s: float | None) -> None:
        """All of it, as it comes. A pause of that length is its end."""
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    piece = await self._pieces.get()
            except TimeoutError:
                self.end()
                continue
            if piece is None:
                return await speech.finish()
            await speech.append(piece)


# Pieces of a file (some are empty), the last with why the speech ended.
EncodedStream: TypeAlias = AsyncGenerator[tuple[bytes, FinishReason | None]]


async def spoken(speaker: Speaker, order: Order, text: str, *, whole: bool) -> EncodedStream:
    """The file of one text: as it is made, or all of it at the end, where `whole`."""
    speech = await speaker.speak(order, text)
    try:
        async with aclosing(_file(speech, order.encoder(whole=whole))) as pieces:
            file = bytearray()
            async for piece, reason in pieces:
                file += piece
                if reason is not None or not whole:
                    yield bytes(file), reason
                    file.clear()
    finally:
        speech.cancel()


async def spoken_live(speaker: Speaker, order: Order, text: PendingText, pause_s: float | None = None) -> EncodedStream:
    """The file of a text that is still being written, from its first certain token on."""
    speech = speaker.speak_live(order)
    writing = asyncio.create_task(text.write_to(speech, pause_s))
    try:
        async with aclosing(_file(speech, order.encoder())) as pieces:
            async for piece, reason in pieces:
                if writing.done():
                    writing.result()
                yield piece, reason
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        speech.cancel()


async def _file(speech: Speech, encoder: AudioEncoder) -> EncodedStream:
    stream = PcmStream(aiter(speech))
    async with aclosing(encoded(stream, encoder)) as pieces:
        async for piece in pieces:
            yield piece, None
    yield b"", stream.last.finish_reason
