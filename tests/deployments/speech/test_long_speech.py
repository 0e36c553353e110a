"""Pieces with a stream each, joined into one: order, pauses, limits, failures, cancellation."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest

from deployments.settings import LongTextArgs
from deployments.speech.long_speech import LongSpeech
from deployments.text.sentences import Piece
from deployments.wire.messages import AudioChunk, TextTiming, Usage
from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded
from qwen_tts.request import FinishReason
from tests.deployments.loaded import Stream, collected

RATE = 1000
FRAME = 80  # samples
PAUSE = 250  # samples, of a sentence


def sound(level: int, frames: int) -> bytes:
    return np.full(frames * FRAME, level, dtype="<i2").tobytes()


def spoken(level: int, reason: FinishReason = "stop", frames: int = 3) -> list[AudioChunk | Exception]:
    return [AudioChunk(sound(level, 1), None), AudioChunk(sound(level, frames - 1), reason, Usage(5, 0, frames))]


class Speaking:
    """Return the speech of pieces of `letters` each. `streams` makes the stream of a piece at an attempt."""

    def __init__(
        self,
        count: int,
        streams: Callable[[int, int], Stream],
        *,
        room: Callable[[], bool] = lambda: True,
        max_frames: int | None = None,
        letters: int = 30,
        **args: float,
    ) -> None:
        self.opened: list[int] = []
        self.ahead_s: list[float] = []
        self.streams: list[Stream] = []

        @asynccontextmanager
        async def open_piece(index: int, ahead_s: float) -> AsyncIterator[AsyncIterator[AudioChunk]]:
            self.ahead_s.append(ahead_s)
            stream = streams(index, self.opened.count(index))
            self.opened.append(index)
            self.streams.append(stream)
            try:
                yield aiter(stream)
            finally:
                stream.cancel()

        async def has_room() -> bool:
            return room()

        pieces = [Piece("x" * letters, 100 * n, 100 * n + 30, "sentence") for n in range(count)]
        settings = LongTextArgs.model_validate({"pieces_at_once": 4, **args})
        self.speech = LongSpeech(pieces, open_piece, has_room, settings, sample_rate_hz=RATE, max_frames=max_frames)


def levels(pcm: bytes | bytearray) -> list[int]:
    """Return the levels in the order in which they are heard, without silence."""
    found = np.frombuffer(pcm, "<i2")
    changes = found[np.flatnonzero(np.diff(found, prepend=0))]
    return [int(level) for level in changes if level]


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the listener's clock: on the slowest machine, none of the audio that was sent has been heard."""
    monkeypatch.setattr("deployments.speech.long_speech.time", SimpleNamespace(monotonic=lambda: 100.0))


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_pieces_are_heard_in_order_with_pauses_whichever_is_ready_first() -> None:
    slow = asyncio.Event()
    speaking = Speaking(6, lambda n, _: Stream(spoken(1000 + n), slow if n == 1 else None))
    async with speaking.speech as speech:
        first = await anext(speech)
        assert first == AudioChunk(sound(1000, 1), None)
        await settle()
        assert speaking.opened == [0, 1, 2, 3], "four at once"
        slow.set()
        chunks = [chunk async for chunk in speech]
        pcm = first.pcm + b"".join(chunk.pcm for chunk in chunks)
        assert levels(pcm) == [1000 + n for n in range(6)]
        assert len(pcm) // 2 == 6 * 3 * FRAME + 5 * PAUSE
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].finish_reason == "stop"
        assert [chunk.usage for chunk in chunks if chunk.usage is not None] == [Usage(30, 0, 18)]
        times = [chunk.timing for chunk in chunks if chunk.timing is not None]
        assert times == [TextTiming(100 * n, 100 * n + 30, 490 * n, 490 * n + 240) for n in range(6)]
        await settle()
        assert all(stream.cancelled for stream in speaking.streams)


async def test_every_piece_is_told_how_much_is_heard_before_it() -> None:
    """30 letters are estimated at 2 s until they are made; the first piece then has 240 ms."""
    go_on = asyncio.Event()
    speaking = Speaking(4, lambda n, _: Stream(spoken(1000 + n), go_on if n else None))
    async with speaking.speech as speech:
        await anext(speech)
        await settle()
        go_on.set()
        await collected(speech)
        first, *others = speaking.ahead_s
        assert first == 0.0
        assert others == pytest.approx([0.24, 2.24, 4.24])


async def test_one_piece_is_the_stream_itself() -> None:
    speaking = Speaking(1, lambda n, _: Stream(spoken(0, "length")))
    async with speaking.speech as speech:
        chunks = [chunk async for chunk in speech]
        assert [(chunk.pcm, chunk.finish_reason) for chunk in chunks] == [(sound(0, 1), None), (sound(0, 2), "length")]
        assert chunks[-1].timing == TextTiming(0, 30, 0, 240)


async def test_one_piece_cut_by_its_length_says_so_at_the_end() -> None:
    speaking = Speaking(3, lambda n, _: Stream(spoken(1000, "length" if n == 1 else "stop")))
    async with speaking.speech as speech:
        _, last = await collected(speech)
    assert last.finish_reason == "length"


@pytest.mark.parametrize(
    ("frames", "heard", "reason"), [(1, 1, "length"), (3, 3, "length"), (7, 7, "length"), (9, 9, "stop")]
)
async def test_the_frame_limit_is_for_all_pieces_together(frames: int, heard: int, reason: str) -> None:
    speaking = Speaking(3, lambda n, _: Stream(spoken(1000 + n)), max_frames=frames)
    async with speaking.speech as speech:
        pcm, last = await collected(speech)
        assert np.count_nonzero(np.frombuffer(pcm, "<i2")) == frames * FRAME
        assert last.finish_reason == reason


async def test_with_audio_in_hand_the_next_piece_waits_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.speech.long_speech._ASK_AGAIN_S", 0)
    room, go_on = False, asyncio.Event()
    # 30 letters are estimated at 2 s, which count before they are made.
    speaking = Speaking(
        6, lambda n, _: Stream(spoken(1000 + n), go_on if n else None), room=lambda: room, ahead_s=3, pieces_at_once=5
    )
    async with speaking.speech as speech:
        first = await anext(speech)
        await settle()
        assert speaking.opened == [0, 1, 2]
        room = True
        await settle()
        assert speaking.opened == [0, 1, 2, 3, 4]
        go_on.set()
        pcm, _ = await collected(speech)
        assert levels(first.pcm + pcm) == [1000 + n for n in range(6)]


@pytest.mark.parametrize("error", [InvalidRequest("no", "voice"), Overloaded("full"), EngineStopped("died")])
async def test_a_refusal_of_the_first_piece_is_the_refusal_of_all(error: Exception) -> None:
    speaking = Speaking(3, lambda n, _: Stream([error]))
    async with speaking.speech as speech:
        with pytest.raises(type(error)):
            await anext(speech)
        assert speaking.opened == [0]


async def test_a_full_queue_is_waited_for() -> None:
    full = Overloaded("full", 0.0)
    speaking = Speaking(4, lambda n, attempt: Stream([full] if n == 1 and attempt < 2 else spoken(1000 + n)))
    async with speaking.speech as speech:
        first = await anext(speech)
        await settle()
        pcm, last = await collected(speech)
        assert levels(first.pcm + pcm) == [1000, 1001, 1002, 1003]
        assert last.finish_reason == "stop"
        assert speaking.opened.count(1) == 3


async def listen(speech: AsyncIterator[AudioChunk], heard: bytearray) -> None:
    async for chunk in speech:
        heard += chunk.pcm


async def test_a_piece_that_fails_ends_the_stream_after_the_audio_before_it() -> None:
    speaking = Speaking(4, lambda n, _: Stream(spoken(1000 + n) if n != 2 else [EngineStopped("died")]))
    async with speaking.speech as speech:
        heard = bytearray()
        with pytest.raises(EngineStopped):
            await listen(speech, heard)
        assert levels(heard) == [1000, 1001]
        await settle()
        assert all(stream.cancelled for stream in speaking.streams)


async def test_cancelling_the_listener_stops_every_piece() -> None:
    never = asyncio.Event()
    speaking = Speaking(6, lambda n, _: Stream(spoken(1000), never if n else None))
    begun = asyncio.Event()

    async def hear() -> None:
        async with speaking.speech as speech:
            await anext(speech)
            begun.set()
            await collected(speech)

    listening = asyncio.create_task(hear())
    await begun.wait()
    await settle()
    assert speaking.opened == [0, 1, 2, 3, 4], "no place is free after the first piece was heard"
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    assert [stream.cancelled for stream in speaking.streams] == [True] * 5
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_leaving_without_listening_any_further_stops_every_piece() -> None:
    never = asyncio.Event()
    speaking = Speaking(6, lambda n, _: Stream(spoken(1000), never if n else None))
    async with speaking.speech as speech:
        await anext(speech)
        await settle()
    assert [stream.cancelled for stream in speaking.streams] == [True] * 4
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_piece_of_which_some_was_made_is_not_begun_again() -> None:
    """Its decoder was lost, and no other one had room."""

    def streams(index: int, attempt: int) -> Stream:
        if index == 0:
            return Stream(spoken(1000))
        return Stream([AudioChunk(sound(2000, 1), None), Overloaded("all slots are in use", 0.01)])

    speaking = Speaking(2, streams)
    async with speaking.speech as speech:
        with pytest.raises(Overloaded):
            async with asyncio.timeout(1.0):
                await collected(speech)
    assert speaking.opened == [0, 1]
