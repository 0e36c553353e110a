"""Runs the engine in a thread of its own. Coroutines send requests and receive FrameChunks."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import nullcontext, suppress

import numpy as np

from deployments.replicas.health import Health
from deployments.replicas.metrics import EngineMetrics
from deployments.replicas.torch_process import adopt_threads
from deployments.wire.messages import FrameChunk, Usage
from deployments.wire.tracing import note_span
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.live_text import LiveText
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.engine.sequence import Frame, Sequence, chunk_sizes
from qwen_tts.errors import EngineStopped
from qwen_tts.request import SpeechRequest

# A listener with less audio in hand gets every frame at once. At real-time pace the next frame takes one frame's time,
# and its way through the decoder to the listener takes longer.
_LEAST_HEADROOM_S = 2 * FRAME_S


class _Waker:
    """Wakes one coroutine from the engine's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def notify(self) -> None:
        # The loop is closed if the process ends while streams run. No coroutine is left to wake then.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    def notify_of(self, task: "asyncio.Task[None]") -> None:
        """Wake the coroutine because `task` has ended. Its error is read here, because the stream may have ended."""
        if not task.cancelled():
            task.exception()
        self._event.set()

    async def wait(self, most_s: float | None = None) -> None:
        """Wait for a notification, at most `most_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._event.wait()
        self._event.clear()


class EngineThread:
    """Steps the engine while it has work. A step that raises ends the engine, and the replica is beyond repair."""

    def __init__(
        self,
        engine: Engine,
        chunk_schedule: tuple[int, ...],
        health: Health,
        metrics: EngineMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread. `metrics` is None outside a replica."""
        self.engine = engine
        self._health = health
        self._clock = clock
        self._metrics = metrics
        self._chunk_schedule = chunk_schedule
        self._groups = engine.config.talker_config.num_code_groups
        self._wakers: dict[Sequence, _Waker] = {}
        self._work = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="talker-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    async def generate(
        self, request: SpeechRequest, rest: AsyncIterator[str] | None = None, made: Iterable[Frame] = ()
    ) -> AsyncGenerator[FrameChunk]:
        """Yield chunks of frames on the growing schedule, or sooner if the listener has little audio left.

        The frames are those behind `made`, which exist already. The last chunk has the finish reason and the usage.
        `rest` yields the rest of a live text as it is written. No frame that the listener waits for is held back while
        a live text pauses. Raises InvalidRequest, Overloaded, RequestFailed, EngineStopped, or what `rest` raises.
        Leaving the iterator early cancels the request.
        """
        made = tuple(made)
        text = None if rest is None else await self._begin(request, rest, len(made))
        sequence = self.engine.add(request, made) if text is None else self.engine.add_live(text, made)
        assert sequence not in self._wakers, "the engine gave one sequence to two requests"
        waker = self._wakers[sequence] = _Waker()
        writer = None if text is None or rest is None or text.ended else self._write(text, rest, waker)
        self._work.set()
        try:
            sent, playback = len(made), Playback(requested=self._clock(), ahead=request.ahead_s)
            for size in chunk_sizes(self._chunk_schedule, self._first_size(sequence)):
                frames = await self._frames_due(sequence, sent, size, playback, waker, writer)
                first = sent == len(made)
                sent += len(frames)
                playback.send(len(frames) * FRAME_S, self._clock())
                if sequence.failure is not None:
                    raise sequence.failure
                if sequence.finish_reason == "cancelled":
                    raise EngineStopped("the talker stopped before the utterance was complete")
                last = sequence.finished and sent == len(sequence.frames)
                assert frames or last, "a chunk without frames in the middle of a stream"
                yield self._chunk(sequence, frames, last=last)
                if first:
                    self._note_start(sequence)
                if last:
                    return
        finally:
            if writer is not None:
                writer.cancel()
            self.engine.cancel(sequence)
            self._work.set()  # so that the engine frees the slot of a paused sequence, too
            del self._wakers[sequence]

    def _note_start(self, sequence: Sequence) -> None:
        """Measure a sequence whose first frames have been sent."""
        if sequence.started_s is None:  # all its frames existed already
            return
        now = self._clock()
        note_span("wait for a slot", sequence.queued_s, sequence.started_s)
        note_span("prefill", sequence.started_s, now)
        note_span("first frame", sequence.queued_s, now)
        if self._metrics is not None:
            self._metrics.waited(sequence.started_s - sequence.queued_s)
            self._metrics.reused(sequence.rows_reused)

    async def _frames_due(
        self,
        sequence: Sequence,
        sent: int,
        size: int,
        playback: Playback,
        waker: _Waker,
        writer: "asyncio.Task[None] | None",
    ) -> list[Frame]:
        """Wait for the chunk that follows the first `sent` frames, and return its frames.

        They are `size` frames, or fewer if the listener cannot wait for `size` or if the sequence has finished.
        """
        # The engine's thread adds a frame before it marks the sequence as finished, so a finished one is complete.
        while not sequence.finished:
            held = len(sequence.frames) - sent
            if self._due(held, size, playback):
                break
            most_s = self._may_wait_s(playback) if sequence.paused and held else None
            if most_s is not None and most_s <= 0:
                break
            await waker.wait(most_s)
            if writer is not None and writer.done():
                writer.result()  # raises the error of `rest`
        return sequence.frames[sent : sent + size]

    def _chunk(self, sequence: Sequence, frames: list[Frame], *, last: bool) -> FrameChunk:
        codes = np.array(frames, dtype=np.int16).reshape(-1, self._groups)
        return FrameChunk(codes, sequence.finish_reason, _usage(sequence)) if last else FrameChunk(codes, None)

    def _first_size(self, sequence: Sequence) -> int:
        """Return the size of the first chunk, in frames.

        Under load the first chunk has one extra frame as a buffer. A piece that plays after other audio starts with the
        largest chunk. A resumed stream has lost time and starts with the smallest one.
        """
        request = sequence.request
        if sequence.resumed_frames:
            return self._chunk_schedule[0]
        if request.first_chunk_frames is not None:
            return request.first_chunk_frames
        if request.ahead_s:
            return self._chunk_schedule[-1]
        alone = self.engine.running + self.engine.waiting == 1
        return self._chunk_schedule[0] + (0 if alone else 1)

    def _due(self, held: int, size: int, playback: Playback) -> bool:
        """Return whether `held` frames must be sent: they fill a chunk of `size`, or the listener cannot wait."""
        if held >= size or playback.first_sent is None:
            return held >= size
        return held > 0 and self._may_wait_s(playback) < 0

    def _may_wait_s(self, playback: Playback) -> float:
        """Return the time until the listener has too little audio left. It is 0 before the first chunk."""
        return 0.0 if playback.first_sent is None else playback.headroom(self._clock()) - _LEAST_HEADROOM_S

    async def _begin(self, request: SpeechRequest, rest: AsyncIterator[str], made: int) -> LiveText:
        """Return the live text of `request` as soon as its prompt, and the text beside `made` frames, are certain."""
        text = self.engine.live_text(request)
        while not text.ready(made):
            if (piece := await anext(rest, None)) is None:
                text.end()
            else:
                text.append(piece)
        return text

    def _write(self, text: LiveText, rest: AsyncIterator[str], waker: _Waker) -> "asyncio.Task[None]":
        """Append `rest` to `text` in a task of its own."""

        async def write() -> None:
            async for piece in rest:
                text.append(piece)
                self._work.set()
            text.end()
            self._work.set()

        writer = asyncio.create_task(write())
        writer.add_done_callback(waker.notify_of)
        return writer

    def close(self) -> None:
        """End all requests, and the thread."""
        self._closing = True
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            adopt_threads()
            while not self._closing:
                self._work.wait()
                self._work.clear()
                while not self.engine.idle and not self._closing:
                    self._notify(self._step())
        except Exception as error:  # whatever the error was, no request may wait for a dead engine
            self._health.failed(error)
        finally:
            self.engine.stop()
            self._notify(tuple(self._wakers))

    def _step(self) -> tuple[Sequence, ...]:
        with self._health.watchdog.computing(), nullcontext() if self._metrics is None else self._metrics.step():
            moved = self.engine.step()
        if self._metrics is not None:
            self._metrics.rows(len(moved))
        return moved

    def _notify(self, sequences: tuple[Sequence, ...]) -> None:
        for sequence in sequences:
            if waker := self._wakers.get(sequence):
                waker.notify()


def _usage(sequence: Sequence) -> Usage:
    behind = 0 if sequence.text is None else sequence.text.trailing_tokens
    return Usage(sequence.layout.text_tokens + behind, sequence.layout.reference_frames, len(sequence.frames))
