"""Speech of any length as one stream: a stream for each piece of the text, joined in order.

The listener hears the first piece while it is made. The next pieces are spoken meanwhile, a few at a time, and wait as
PCM. If the listener has more than `ahead_s` of audio, the next piece begins only on a replica that is half idle: other
requests that wait for their first word come first.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType

from deployments.audio.joining import Joiner
from deployments.settings import LongTextArgs
from deployments.speech.parts import AudioLimit, Part
from deployments.text.sentences import Ending, Piece
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded
from qwen_tts.request import FinishReason

_PAUSES_MS: dict[Ending, int] = {"paragraph": 400, "sentence": 250, "clause": 120, "word": 0}
_ASK_AGAIN_S = 0.5
_ANSWER_S = 2.0
_PATIENCE_S = 60.0  # with a full queue, once the speech has begun

OpenPiece = Callable[[int, float], AbstractAsyncContextManager[AsyncIterator[AudioChunk]]]


class LongSpeech:
    """A context with the AudioChunks of all pieces. Leaving it stops every piece.

    The last chunk of each piece has the timing of its text.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        open_piece: OpenPiece,
        has_room: Callable[[], Awaitable[bool]],
        args: LongTextArgs,
        *,
        sample_rate_hz: int,
        max_frames: int | None,
    ) -> None:
        """`open_piece(index, ahead_s)` speaks a piece that is heard after `ahead_s` seconds of other audio.

        `has_room` returns whether a replica is half idle. `max_frames` bounds the speech of all pieces together.
        """
        self._bytes_per_s = 2 * sample_rate_hz
        self._parts = [Part(piece, self._bytes_per_s) for piece in pieces]
        self._open = open_piece
        self._has_room = has_room
        self._args = args
        self._joiner = Joiner(sample_rate_hz)
        self._playback = Playback(requested=time.monotonic())
        self._limit = AudioLimit(None if max_frames is None else round(max_frames * FRAME_S * sample_rate_hz) * 2)
        # Places of the pieces that are spoken while another one is heard.
        self._places = asyncio.Semaphore(args.pieces_at_once - 1)
        self._sent_bytes = 0
        self._cut = False  # a piece has ended by its length
        self._usage = Usage(0, 0, 0)  # of the pieces that were heard
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> AsyncIterator[AudioChunk]:
        self._begin(0)
        self._chunks = self._joined()
        return self._chunks

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._chunks.aclose()  # type: ignore[attr-defined]  # an async generator behind its public type

    async def _joined(self) -> AsyncIterator[AudioChunk]:
        for index, part in enumerate(self._parts):
            if index:
                self._joiner.pause(_PAUSES_MS[self._parts[index - 1].piece.ending])
            part.starts_bytes = self._sent_bytes
            ended = False
            while not ended:
                chunk = self._limited(part, await part.take())
                ended = chunk.finish_reason is not None
                yield self._heard(part, chunk)
            if self._limit.reached:
                return
            self._places.release()

    def _limited(self, part: Part, chunk: AudioChunk) -> AudioChunk:
        """Return the part of the chunk that the limit of all pieces allows."""
        ends = part is self._parts[-1] and chunk.finish_reason is not None
        pcm = self._limit.cut(chunk.pcm, ends=ends)
        return replace(chunk, pcm=pcm, finish_reason="length") if self._limit.reached else chunk

    def _heard(self, part: Part, chunk: AudioChunk) -> AudioChunk:
        """Return the chunk for the listener: with pauses, and with a finish reason only at the end of all pieces."""
        if self._playback.first_sent is None and len(self._parts) > 1:
            self._own(self._begin_others())
        silence, sound = self._joiner.add(chunk.pcm)
        part.starts_bytes += len(silence)
        self._sent_bytes += len(silence) + len(sound)
        self._playback.send((len(silence) + len(sound)) / self._bytes_per_s, time.monotonic())
        if chunk.finish_reason is None:
            return replace(chunk, pcm=silence + sound)
        self._cut = self._cut or chunk.finish_reason == "length"
        last = part is self._parts[-1] or self._limit.reached
        reason: FinishReason | None = ("length" if self._cut else "stop") if last else None
        timing = TextTiming(part.piece.start, part.piece.end, self._ms(part.starts_bytes), self._ms(self._sent_bytes))
        # A piece that the limit cuts has not reported its usage.
        self._usage += Usage(0, 0, round(part.made_s / FRAME_S)) if chunk.usage is None else chunk.usage
        usage = self._usage if last else None
        return replace(chunk, pcm=silence + sound, finish_reason=reason, usage=usage, timing=timing)

    async def _begin_others(self) -> None:
        """Begin one piece after the other, each when a place is free and more audio is wanted."""
        for index in range(1, len(self._parts)):
            await self._places.acquire()
            try:
                while self._ahead_s(index) > self._args.ahead_s and not await self._room():  # noqa: ASYNC110  # of other processes
                    await asyncio.sleep(_ASK_AGAIN_S)
            except Exception as error:  # raised to the listener when this part comes
                self._parts[index].fail(error)
                return
            self._begin(index)

    async def _room(self) -> bool:
        """Return whether a replica is half idle. One that does not answer in time is not."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._has_room()
        except TimeoutError:
            return False

    def _begin(self, index: int) -> None:
        assert not self._parts[index].begun, "a piece is begun once"
        self._parts[index].begun = True
        self._own(self._speak(index, self._parts[index]))

    def _ahead_s(self, index: int) -> float:
        """Seconds of audio that the listener hears before a piece."""
        in_hand_s = self._playback.headroom(time.monotonic()) if self._playback.first_sent is not None else 0.0
        return max(0.0, in_hand_s + sum(part.coming_s for part in self._parts[:index]))

    async def _speak(self, index: int, part: Part) -> None:
        try:
            await self._fill(index, part)
        except Exception as error:  # raised to the listener when this part comes
            part.fail(error)

    async def _fill(self, index: int, part: Part) -> None:
        """Put a piece's audio into its part. All pieces but the first wait while the queue is full."""
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                async with self._open(index, self._ahead_s(index)) as chunks:
                    async for chunk in chunks:
                        part.put(chunk)
                return
            except Overloaded as full:
                if index == 0 or part.made_s or time.monotonic() > give_up:
                    raise
                await asyncio.sleep(full.retry_after_s)

    def _own(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _ms(self, size_bytes: int) -> int:
        return round(1000 * size_bytes / self._bytes_per_s)
