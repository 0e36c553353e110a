"""The encoding of AudioChunks as pieces of an audio file, in separate threads."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from dataclasses import InitVar, dataclass, field
from typing import Self

from deployments.audio.encoder import AudioEncoder, AudioFormat, file_rate_hz
from deployments.speech.audio_budget import AudioBudget
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from qwen_tts.cpus import usable_cpus
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import FinishReason


@dataclass(frozen=True)
class AudioOutput:
    """The kind of file that a request asks for. Raises InvalidRequest if there is no such kind."""

    audio_format: AudioFormat
    source_rate_hz: int
    sample_rate_hz: InitVar[int | None]
    speed: float
    rate_hz: int = field(init=False)  # of the file

    def __post_init__(self, sample_rate_hz: int | None) -> None:
        rate_hz = file_rate_hz(self.audio_format, self.source_rate_hz, sample_rate_hz, self.speed)
        object.__setattr__(self, "rate_hz", rate_hz)

    def encoder(self, *, whole: bool) -> AudioEncoder:
        return AudioEncoder(self.audio_format, self.source_rate_hz, self.rate_hz, self.speed, whole=whole)


class BatchRoom:
    """The bytes of audio that are left for the items of one batch."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left_bytes = size_bytes

    def take(self, size_bytes: int) -> None:
        """Subtract `size_bytes` from the rest. Raises InvalidRequest `batch_too_large`."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            message = f"the items together exceed {self._size_bytes} bytes of audio; send fewer items"
            raise InvalidRequest(message, None, "batch_too_large")


class EncodedSpeech:
    """The pieces of one audio file, in order; some are empty. Iterated once.

    `timings` has the times of the text that has been spoken so far. After the last piece `finish_reason` and `usage`
    are known.
    """

    def __init__(
        self,
        chunks: AsyncIterator[AudioChunk],
        encoder: AudioEncoder,
        output: AudioOutput,
        account: Callable[[AudioChunk, bytes], Awaitable[None]],
        threads: Executor,
    ) -> None:
        """`account` is called with every chunk and the piece made of it, before the piece is sent."""
        self.output = output
        self.media_type = encoder.media_type
        self.timings: list[TextTiming] = []
        self._chunks = chunks
        self._encoder = encoder
        self._account = account
        self._threads = threads
        self._last: AudioChunk | None = None
        self._pieces = self._encode()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        await self._pieces.aclose()

    async def _encode(self) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        async for chunk in self._chunks:
            assert self._last is None, "a chunk after the last one"
            if chunk.timing is not None:
                self.timings.append(chunk.timing)
            if chunk.finish_reason is not None:
                self._last = chunk
            piece = await loop.run_in_executor(self._threads, self._encoder.encode, chunk.pcm)
            await self._account(chunk, piece)
            yield piece
        assert self._last is not None, "the last chunk of a stream says why it ended"
        yield await loop.run_in_executor(self._threads, self._encoder.finish)

    @property
    def ended(self) -> bool:
        return self._last is not None

    @property
    def finish_reason(self) -> FinishReason:
        assert self._last is not None, "the speech goes on"
        assert self._last.finish_reason is not None, "the last chunk of a stream has a finish reason"
        return self._last.finish_reason

    @property
    def usage(self) -> Usage:
        assert self._last is not None, "the speech goes on"
        assert self._last.usage is not None, "the last chunk of a stream has the usage"
        return self._last.usage


class SpeechEncoding:
    """The encoders of one ingress replica.

    They run in separate threads: slow work of other requests must not delay the next 80 ms of a stream.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` of audio may be held for all callers together."""
        self._threads = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="audio-encoder")
        self.budget = AudioBudget(most_bytes)

    @asynccontextmanager
    async def open(
        self,
        chunks: AbstractAsyncContextManager[AsyncIterator[AudioChunk]],
        output: AudioOutput,
        *,
        whole: bool,
        room: BatchRoom | None = None,
    ) -> AsyncIterator[EncodedSpeech]:
        """Encode `chunks`: piece by piece as they arrive, or as one file at the end if `whole`.

        Leaving the context stops the speech and frees the encoder. The iteration raises what the speech raises.
        """
        with closing(output.encoder(whole=whole)) as encoder, self.budget.share() as share:

            async def account(chunk: AudioChunk, piece: bytes) -> None:
                if room is not None:
                    room.take(len(chunk.pcm))
                if whole:
                    share.collect(len(chunk.pcm))
                else:
                    audio_s = len(chunk.pcm) / 2 / output.source_rate_hz / output.speed
                    await share.send(len(piece), audio_s)

            async with (
                chunks as opened,
                aclosing(EncodedSpeech(opened, encoder, output, account, self._threads)) as speech,
            ):
                yield speech
