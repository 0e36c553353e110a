"""Speech of any length, heard as one stream: the pieces of a text, spoken by a stream each and joined in order.

The first piece is heard as it comes. Those after it are spoken meanwhile and wait for their turn as PCM. A few are
under way at once; and beyond `ahead_s` of audio in the listener's hands, one begins only where a replica is half idle:
whoever waits for a first word comes before words that nobody waits for yet.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.audio.joining import Joiner
from deployments.settings import LongTextArgs
from deployments.text.sentences import Ending, Piece, spoken_length
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from deployments.wire.streams import ResponseStream, cancel
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import EngineStopped, Overloaded
from qwen_tts.request import FinishReason

_PAUSES_MS: dict[Ending, int] = {"paragraph": 400, "sentence": 250, "clause": 120, "word": 0}
_LETTERS_PER_S = 15  # of speech
_ASK_AGAIN_S = 0.5
_PATIENCE_S = 60.0  # with a full queue, once the speech has begun


@dataclass
class _Part:
    """A piece, and what has come of it and was not taken yet."""

    piece: Piece
    arrived: "asyncio.Queue[AudioChunk | Exception]" = field(default_factory=asyncio.Queue)
    begun: bool = False
    taken: bool = False
    ended: bool = False
    made_bytes: int = 0
    waiting_bytes: int = 0
    starts_bytes: int = 0  # where it is heard

    def add(self, chunk: AudioChunk) -> None:
        self.made_bytes += len(chunk.pcm)
        self.waiting_bytes += len(chunk.pcm)
        self.ended = chunk.finish_reason is not None
        self.arrived.put_nowait(chunk)

    async def take(self) -> AudioChunk:
        """Raises what the piece failed with."""
        found = await self.arrived.get()
        if isinstance(found, Exception):
            raise found
        self.taken = True
        self.waiting_bytes -= len(found.pcm)
        return found

    def forget(self) -> None:
        """It is spoken once more."""
        while not self.arrived.empty():
            self.arrived.get_nowait()
        self.made_bytes = self.waiting_bytes = 0

    def coming_s(self, bytes_per_s: int) -> float:
        """Audio of a piece under way that was not taken yet, made or still to make."""
        if not self.begun:
            return 0.0
        missing = 0.0 if self.ended else spoken_length(self.piece.text) / _LETTERS_PER_S - self.made_bytes / bytes_per_s
        return self.waiting_bytes / bytes_per_s + max(0.0, missing)


class LongSpeech:
    """A ResponseStream of AudioChunks. The last chunk of every piece says when its text was spoken."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        open_piece: Callable[[int, float], Awaitable[ResponseStream]],
        has_room: Callable[[], Awaitable[bool]],
        args: LongTextArgs,
        *,
        sample_rate_hz: int,
        max_frames: int | None,
    ) -> None:
        """`open_piece` is told which, and how many seconds of audio are to be heard before it; `has_room` says whether
        a replica is half idle; `max_frames` bounds the speech of all pieces together."""
        self._parts = [_Part(piece) for piece in pieces]
        self._open = open_piece
        self._has_room = has_room
        self._args = args
        self._bytes_per_s = 2 * sample_rate_hz
        self._joiner = Joiner(sample_rate_hz)
        self._playback = Playback(requested=time.monotonic())
        self._left_bytes = None if max_frames is None else round(max_frames * FRAME_S * sample_rate_hz) * 2
        self._places = asyncio.Semaphore(args.pieces_at_once - 1)  # of pieces that wait for the one being heard
        self._sent_bytes = 0
        self._cut = False  # some piece has ended by its length
        self._usage = Usage(0, 0, 0)  # of the pieces that were heard
        self._tasks: list[asyncio.Task[None]] = []
        self._chunks = self._joined()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AudioChunk:
        return await anext(self._chunks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _joined(self) -> AsyncIterator[AudioChunk]:
        self._begin(0)
        try:
            for index, part in enumerate(self._parts):
                if index:
                    self._joiner.pause(_PAUSES_MS[self._parts[index - 1].piece.ending])
                part.starts_bytes = self._sent_bytes
                async for chunk in self._part_chunks(part):
                    heard = self._heard(part, chunk)
                    yield heard
                    if heard.finish_reason is not None:
                        return
                self._places.release()
        finally:
            self.cancel()

    async def _part_chunks(self, part: _Part) -> AsyncIterator[AudioChunk]:
        """To the end of the piece, or of what all pieces may come to."""
        ended = False
        while not ended:
            chunk = await part.take()
            if (left := self._left_bytes) is not None:
                at_the_end = part is self._parts[-1] and chunk.finish_reason is not None
                if len(chunk.pcm) > left or (len(chunk.pcm) == left and not at_the_end):
                    chunk = replace(chunk, pcm=chunk.pcm[:left], finish_reason="length")
                self._left_bytes = left - len(chunk.pcm)
            ended = chunk.finish_reason is not None
            yield chunk

    def _heard(self, part: _Part, chunk: AudioChunk) -> AudioChunk:
        """The chunk as the listener gets it: with pauses, and with a finish reason only at the end of everything."""
        if self._playback.first_sent is None and len(self._parts) > 1:
            self._own(self._begin_others())
        silence, sound = self._joiner.add(chunk.pcm)
        part.starts_bytes += len(silence)
        self._sent_bytes += len(silence) + len(sound)
        self._playback.send((len(silence) + len(sound)) / self._bytes_per_s, time.monotonic())
        if chunk.finish_reason is None:
            return replace(chunk, pcm=silence + sound)
        self._cut = self._cut or chunk.finish_reason == "length"
        last = part is self._parts[-1] or self._left_bytes == 0
        reason: FinishReason | None = ("length" if self._cut else "stop") if last else None
        span = TextTiming(part.piece.start, part.piece.end, self._ms(part.starts_bytes), self._ms(self._sent_bytes))
        # A piece that is cut here has not said what it read.
        cut = Usage(0, 0, round(part.made_bytes / self._bytes_per_s / FRAME_S))
        self._usage += cut if chunk.usage is None else chunk.usage
        usage = self._usage if last else None
        return replace(chunk, pcm=silence + sound, finish_reason=reason, usage=usage, timing=span)

    async def _begin_others(self) -> None:
        """One piece after the other, as there are places and while they are wanted."""
        for index in range(1, len(self._parts)):
            await self._places.acquire()
            try:
                while self._ahead_s(index) > self._args.ahead_s and not await self._has_room():  # noqa: ASYNC110  # of other processes
                    await asyncio.sleep(_ASK_AGAIN_S)
            except Exception as error:  # the listener's to hear
                self._parts[index].arrived.put_nowait(error)
                return
            self._begin(index)

    def _begin(self, index: int) -> None:
        self._parts[index].begun = True
        self._own(self._speak(index, self._parts[index]))

    def _ahead_s(self, index: int) -> float:
        """Audio to be heard before a piece."""
        in_hand = self._playback.headroom(time.monotonic()) if self._playback.first_sent is not None else 0.0
        return max(0.0, in_hand + sum(part.coming_s(self._bytes_per_s) for part in self._parts[:index]))

    async def _speak(self, index: int, part: _Part) -> None:
        try:
            await self._read(index, part)
        except Exception as error:  # the listener's to hear, when it is this piece's turn
            part.arrived.put_nowait(error)

    async def _read(self, index: int, part: _Part) -> None:
        """Fill `part`. Once the speech has begun, a full queue is waited for, and a lost replica's piece made again."""
        give_up, lost = time.monotonic() + _PATIENCE_S, False
        while True:
            try:
                stream = await self._open(index, self._ahead_s(index))
                try:
                    async for chunk in stream:
                        part.add(chunk)
                finally:
                    cancel(stream)
                return
            except Overloaded as full:
                if index == 0 or time.monotonic() > give_up:
                    raise
                await asyncio.sleep(full.retry_after_s)
            except (EngineStopped, RayActorError, DeploymentUnavailableError):
                if index == 0 or part.taken or lost:
                    raise
                lost = True
                part.forget()

    def _own(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _ms(self, size_bytes: int) -> int:
        return round(1000 * size_bytes / self._bytes_per_s)
