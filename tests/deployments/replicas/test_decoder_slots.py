"""The slots of a codec decoder: which stream gets one, and how many may wait."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from deployments.replicas.decoder_slots import DecoderSlots, Listener
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded

SLOTS = 3


class Streams:
    """Streams that request a slot one after the other. `admitted` has those that got one, in that order."""

    def __init__(self) -> None:
        self.slots = DecoderSlots(SLOTS)
        self.admitted: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def request(self, *names: str, requested: float = 100.0, ahead_s: float = 0.0) -> None:
        for name in names:
            self._tasks[name] = asyncio.create_task(
                self._hold(name, Playback(requested, ahead_s, continues=ahead_s > 0))
            )
        await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await settle()

    async def _hold(self, name: str, playback: Playback) -> None:
        async with self.slots.slot(playback):
            self.admitted.append(name)
            await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_go_to_the_stream_that_is_due_first() -> None:
    streams = Streams()
    await streams.request("a", "b", "c")
    await streams.request("late", requested=102.0)
    await streams.request("early", requested=101.0)
    assert (streams.admitted, streams.slots.waiting) == (["a", "b", "c"], 2)
    await streams.end("b")
    await streams.end("a")
    assert streams.admitted[3:] == ["early", "late"]


async def test_a_text_that_is_playing_continues_before_others_begin() -> None:
    streams = Streams()
    await streams.request("a", "b", "c", "d")
    await streams.request("rest", ahead_s=30.0)
    await streams.end("a")
    assert streams.admitted[3:] == ["rest"]


async def test_streams_cancelled_in_the_queue_or_with_a_slot_leave_nothing() -> None:
    streams = Streams()
    await streams.request("a", "b", "c", "d", "e")
    await streams.end("d")
    assert streams.slots.waiting == 1
    await streams.end("a")
    assert streams.admitted == ["a", "b", "c", "e"]
    await streams.end("b", "c", "e")
    assert (streams.slots.waiting, streams.slots.in_use) == (0, 0)


async def test_as_many_streams_as_there_are_slots_may_wait() -> None:
    streams = Streams()
    await streams.request(*(str(number) for number in range(2 * SLOTS)))
    assert (len(streams.admitted), streams.slots.waiting) == (SLOTS, SLOTS)
    async with AsyncExitStack() as stack:
        with pytest.raises(Overloaded, match="3 slots"):
            await stack.enter_async_context(streams.slots.slot(Playback(requested=100.0)))


def test_a_first_piece_is_due_after_it_has_come_and_later_ones_when_the_audio_ends() -> None:
    listener = Listener(Playback(requested=100.0))
    assert listener.due_s(107.0) == pytest.approx(107.16)
    listener.playback.send(0.5, 107.0)
    assert listener.due_s(107.1) == pytest.approx(107.5)
