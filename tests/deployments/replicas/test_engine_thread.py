"""The engine in its thread: chunks follow the schedule, and every stream ends even if the engine fails."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from torch import Tensor

from deployments.replicas.engine_thread import EngineThread
from deployments.replicas.health import Health
from deployments.wire.messages import FrameChunk, Usage
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.passes import PlainPasses
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded, RequestFailed
from qwen_tts.request import SpeechRequest
from tests.deployments.replicas.conftest import Leaving
from tests.qwen_tts.tiny import ALWAYS, codes, custom, tiny_engine

PATIENCE_S = 30.0
ENDLESS = custom(seed=9, max_frames=4000)


class Threads:
    """Starts engine threads and ends all of them."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self.health = Health()
        self._started: list[EngineThread] = []

    def start(
        self,
        engine: Engine | None = None,
        *,
        slots: int = 1,
        max_waiting: int = 1,
        schedule: tuple[int, ...] = (1, 2, 4, 8),
        clock: Callable[[], float] = time.monotonic,
    ) -> EngineThread:
        if engine is None:
            engine = tiny_engine(self._checkpoint, slots=slots, positions=4096, max_waiting=max_waiting)
        self._started.append(EngineThread(engine, schedule, self.health, clock=clock))
        return self._started[-1]

    def close(self) -> None:
        for thread in self._started:
            thread.close()


@pytest.fixture
def threads(custom_voice: Path) -> Iterator[Threads]:
    all_threads = Threads(custom_voice)
    yield all_threads
    all_threads.close()


def generate(thread: EngineThread, request: SpeechRequest) -> AsyncGenerator[FrameChunk, None]:
    stream = thread.generate(request)
    assert isinstance(stream, AsyncGenerator)
    return stream


async def next_chunk(stream: AsyncGenerator[FrameChunk, None]) -> FrameChunk:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(stream)


async def rest(stream: AsyncGenerator[FrameChunk, None]) -> list[FrameChunk]:
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in stream]


class Typed:
    """A live text that the test writes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()

    def write(self, *pieces: str | Exception | None) -> None:
        """None ends the text."""
        for piece in pieces:
            self.queue.put_nowait(piece)

    async def pieces(self) -> AsyncGenerator[str, None]:
        while (piece := await self.queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def wait_for_pause(thread: EngineThread, typed: Typed) -> None:
    """Wait until the whole text so far has been spoken."""
    deadline = time.monotonic() + PATIENCE_S
    while not typed.queue.empty() or not thread.engine.idle:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def speak_live(thread: EngineThread, typed: Typed, max_frames: int | None = None) -> AsyncGenerator[FrameChunk, None]:
    stream = thread.generate(custom("H", layout="streaming", max_frames=max_frames), typed.pieces())
    assert isinstance(stream, AsyncGenerator)
    return stream


async def listen(thread: EngineThread, request: SpeechRequest) -> list[FrameChunk]:
    return await rest(generate(thread, request))


def frames(chunks: list[FrameChunk]) -> list[Frame]:
    return [tuple(frame) for chunk in chunks for frame in chunk.codes.tolist()]


def break_engine(thread: EngineThread) -> None:
    """Make every computation raise, as when the device fails."""

    def lost(*_: object) -> Tensor:
        raise RuntimeError("device lost")

    passes = cast("PlainPasses", thread.engine._runner._passes)
    passes.decode = passes.read_prompt = lost  # type: ignore[assignment,method-assign]


async def test_chunks_follow_the_schedule_and_the_last_has_the_reason(threads: Threads, custom_voice: Path) -> None:
    """The clock stands still. With two frames in hand, the listener can wait for a whole chunk."""
    request = custom(max_frames=28)
    chunks = await listen(threads.start(schedule=(2, 4, 8), clock=lambda: 0.0), request)
    assert [len(chunk.codes) for chunk in chunks] == [2, 4, 8, 8, 6]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 4 + ["length"]
    assert frames(chunks) == codes(tiny_engine(custom_voice), request)


async def test_a_listener_without_audio_in_hand_waits_for_no_chunk(threads: Threads) -> None:
    """The clock runs fast. The listener has played every frame before the next one comes."""
    thread = threads.start(schedule=(1, 2000), clock=itertools.count().__next__)
    stream = generate(thread, ENDLESS)
    sizes = [len((await anext(stream)).codes) for _ in range(3)]
    await stream.aclose()
    assert sizes[0] == 1
    assert sum(sizes) < 2000


async def test_the_first_chunk_is_as_large_as_the_request_says(threads: Threads, custom_voice: Path) -> None:
    request = custom(max_frames=28)
    chunks = await listen(threads.start(clock=lambda: 0.0), replace(request, first_chunk_frames=5))
    assert [len(chunk.codes) for chunk in chunks] == [5, 8, 8, 7]
    assert frames(chunks) == codes(tiny_engine(custom_voice), request)


async def test_under_load_a_stream_begins_with_one_frame_more(threads: Threads) -> None:
    thread = threads.start(slots=2, max_waiting=2, clock=lambda: 0.0)
    other = generate(thread, ENDLESS)
    assert len((await anext(other)).codes) == 1
    chunks = await listen(thread, custom(max_frames=16))
    await other.aclose()
    assert [len(chunk.codes) for chunk in chunks] == [2, 4, 8, 2]


async def test_a_piece_that_plays_after_other_audio_has_large_chunks(threads: Threads) -> None:
    chunks = await listen(threads.start(clock=lambda: 0.0), replace(custom(max_frames=20), ahead_s=0.5))
    assert [len(chunk.codes) for chunk in chunks] == [8, 8, 4]


async def test_the_last_chunk_has_the_usage(threads: Threads, custom_voice: Path) -> None:
    request = custom("Hello there.", instructions="softly", max_frames=9)
    chunks = await listen(threads.start(), request)
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    words = tiny_engine(custom_voice)._tokenizer
    read = len(words.encode("Hello there.")) + len(words.encode("softly"))
    assert chunks[-1].usage == Usage(read, 0, 9)


async def test_a_slow_reader_misses_nothing(threads: Threads, custom_voice: Path) -> None:
    """The utterance is complete before its second chunk is read. Only the last chunk has the finish reason."""
    thread, request = threads.start(), custom(max_frames=28)
    stream = generate(thread, request)
    chunks = [await anext(stream)]
    await listen(thread, custom(max_frames=1))  # waits for the only slot
    chunks += await rest(stream)
    assert [len(chunk.codes) for chunk in chunks] == [1, 2, 4, 8, 8, 5]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 5 + ["length"]
    assert frames(chunks) == codes(tiny_engine(custom_voice), request)


async def test_end_of_speech_is_told(threads: Threads, custom_voice: Path) -> None:
    chunks = await listen(threads.start(tiny_engine(custom_voice, eos_bias=ALWAYS)), custom())
    assert len(frames(chunks)) == 2
    assert chunks[-1].finish_reason == "stop"


async def test_streams_together_are_streams_alone(threads: Threads, custom_voice: Path) -> None:
    """Five streams share two slots. Some wait, and each gets its own codes."""
    requests = [custom(seed=seed, max_frames=10 + 7 * seed) for seed in range(5)]
    thread = threads.start(slots=2, max_waiting=8)
    heard = await asyncio.gather(*(listen(thread, request) for request in requests))
    engine = tiny_engine(custom_voice)
    assert [frames(chunks) for chunks in heard] == [codes(engine, request) for request in requests]
    assert thread.engine.idle


async def test_leaving_early_gives_the_slot_to_the_next(threads: Threads, custom_voice: Path) -> None:
    thread = threads.start()
    stream = generate(thread, ENDLESS)
    await anext(stream)
    (left,) = thread.engine._scheduler.running
    await stream.aclose()
    assert frames(await listen(thread, custom())) == codes(tiny_engine(custom_voice), custom())
    assert left.finish_reason == "cancelled"
    assert len(left.frames) < left.max_frames
    assert thread.engine.idle


async def test_a_cancelled_listener_leaves_the_queue(threads: Threads) -> None:
    thread = threads.start()
    stream = generate(thread, ENDLESS)
    await anext(stream)
    waiting = asyncio.create_task(listen(thread, custom()))
    await asyncio.sleep(0)
    assert thread.engine.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert thread.engine.waiting == 0
    await stream.aclose()


async def test_a_refused_request_leaves_the_others_running(threads: Threads) -> None:
    thread = threads.start(max_waiting=0)
    stream = generate(thread, ENDLESS)
    await anext(stream)
    with pytest.raises(Overloaded):
        await listen(thread, custom())
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        await listen(thread, custom(speaker="nobody"))
    assert len((await anext(stream)).codes) > 0
    await stream.aclose()


async def test_a_request_that_cannot_be_computed_fails_alone(threads: Threads, custom_voice: Path) -> None:
    requests = [custom(seed=seed, max_frames=20) for seed in range(3)]
    alone = [codes(tiny_engine(custom_voice), request) for request in requests]
    thread = threads.start(slots=4)
    draw = thread.engine._runner._draw

    def poisoned(sequences: tuple[Sequence, ...]) -> Tensor:
        if any(sequence.request.seed == 666 and len(sequence.frames) == 7 for sequence in sequences):
            raise ArithmeticError
        return draw(sequences)

    thread.engine._runner._draw = poisoned  # type: ignore[method-assign]
    spoken = [custom(seed=666, max_frames=20), *requests]
    bad, *good = await asyncio.gather(*(listen(thread, request) for request in spoken), return_exceptions=True)
    assert isinstance(bad, RequestFailed)
    assert [frames(chunks) for chunks in good if not isinstance(chunks, BaseException)] == alone
    threads.health.check()
    assert thread.alive


async def test_an_engine_that_is_beyond_repair_ends_every_stream_and_its_replica(
    threads: Threads, leaving: Leaving, caplog: pytest.LogCaptureFixture
) -> None:
    thread = threads.start()
    running = generate(thread, ENDLESS)
    await anext(running)
    waiting = asyncio.create_task(listen(thread, custom()))
    await asyncio.sleep(0)
    assert thread.engine.waiting == 1

    break_engine(thread)
    with pytest.raises(EngineStopped):
        await rest(running)
    with pytest.raises(EngineStopped):
        await waiting
    await asyncio.to_thread(thread._thread.join, PATIENCE_S)
    assert not thread.alive
    assert thread.engine.idle
    assert "device lost" in caplog.text
    assert leaving.count == 1
    with pytest.raises(EngineStopped):
        threads.health.check()
    with pytest.raises(EngineStopped):
        await listen(thread, custom())


async def test_closing_ends_the_streams_and_the_thread(threads: Threads) -> None:
    thread = threads.start()
    stream = generate(thread, ENDLESS)
    await anext(stream)
    assert thread.alive
    await asyncio.to_thread(thread.close)
    assert not thread.alive
    with pytest.raises(EngineStopped):
        await rest(stream)
    with pytest.raises(EngineStopped):
        await listen(thread, custom())


def test_an_idle_thread_closes(threads: Threads) -> None:
    thread = threads.start()
    thread.close()
    assert not thread.alive


async def test_live_text_is_spoken_as_it_comes(threads: Threads, custom_voice: Path) -> None:
    """While the text pauses, its frames are sent as soon as the listener has little audio left. Other streams go on.
    The codes are those of the whole text."""
    now = [0.0]
    thread, typed = threads.start(slots=2, schedule=(2, 4, 8), clock=lambda: now[0]), Typed()
    stream = speak_live(thread, typed, max_frames=30)
    typed.write("ey, ", "you")
    chunks = [await anext(stream), await anext(stream)]
    last = asyncio.create_task(next_chunk(stream))
    await asyncio.to_thread(wait_for_pause, thread, typed)
    await asyncio.sleep(0.01)
    assert not last.done(), "the listener has enough audio in hand"
    now[0] = 0.4
    chunks.append(await last)
    assert [len(chunk.codes) for chunk in chunks] == [2, 4, len("Hey, yo") - 6]
    assert len(frames(await listen(thread, custom(max_frames=20)))) == 20
    (sequence,) = thread.engine._scheduler.running
    assert (sequence.paused, len(sequence.frames)) == (True, 7)
    typed.write(" there", None)
    chunks += await rest(stream)
    whole = custom("Hey, you there", layout="streaming", max_frames=30)
    assert frames(chunks) == codes(tiny_engine(custom_voice), whole)
    assert chunks[-1].finish_reason == "length"


@pytest.mark.parametrize("written", ["", "ey, you"], ids=["before the first frame", "while it pauses"])
@pytest.mark.parametrize("how", ["leave", "the text fails", "the engine stops"])
async def test_live_text_ends_with_its_stream(threads: Threads, written: str, how: str) -> None:
    thread, typed = threads.start(), Typed()
    stream = speak_live(thread, typed, max_frames=30)
    typed.write(written)
    listening = asyncio.create_task(rest(stream))
    await asyncio.to_thread(wait_for_pause, thread, typed)
    if how == "leave":
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
    elif how == "the text fails":
        typed.write(InvalidRequest("no text", "input"))
        with pytest.raises(InvalidRequest, match="no text"):
            await listening
    else:
        await asyncio.to_thread(thread.close)
        typed.write("more", None)
        with pytest.raises(EngineStopped):
            await listening
        return
    assert len(frames(await listen(thread, custom(max_frames=20)))) == 20, "the slot is free"
    assert thread.engine.running == 0


async def test_a_live_text_that_cannot_be_spoken_is_refused(threads: Threads) -> None:
    thread, typed = threads.start(), Typed()
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        await anext(thread.generate(custom("H", speaker="nobody"), typed.pieces()))
    stream = speak_live(thread, typed)
    typed.write("ey, " * 2000)
    with pytest.raises(InvalidRequest, match="input too long"):
        await rest(stream)
    assert frames(await listen(thread, custom(max_frames=1)))
