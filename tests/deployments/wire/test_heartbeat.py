"""Heartbeats come in the pauses of a stream and change nothing else."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from deployments.errors import Silence
from deployments.wire.callers import Callers
from deployments.wire.heartbeat import Heartbeat, with_heartbeats, without_heartbeats
from tests.virtual_time import VirtualTimeLoop, in_virtual_time

BEAT = Heartbeat("talker-1")


class Source:
    """A stream of numbers, each after a pause in seconds."""

    def __init__(self, *items: tuple[float, int | Exception]) -> None:
        self._items = items
        self.closed = False

    async def stream(self) -> AsyncGenerator[int]:
        try:
            for pause_s, item in self._items:
                await asyncio.sleep(pause_s)
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


@in_virtual_time()
async def test_they_come_at_the_start_and_in_pauses() -> None:
    source = Source((0.1, 1), (1.2, 2), (0.4, 3))
    found = [item async for item in with_heartbeats(source.stream(), "talker-1", Callers(), None)]
    assert found == [BEAT, 1, BEAT, BEAT, 2, 3]
    assert source.closed


@in_virtual_time()
async def test_an_error_comes_after_the_items_before_it() -> None:
    beating = with_heartbeats(Source((0.1, 1), (0.0, ValueError("broken"))).stream(), "talker-1", Callers(), None)
    assert [await anext(beating), await anext(beating)] == [BEAT, 1]
    with pytest.raises(ValueError, match="broken"):
        await anext(beating)


@in_virtual_time()
async def test_leaving_ends_the_stream() -> None:
    source = Source((0.0, 1), (1000.0, 2))
    beating = with_heartbeats(source.stream(), "talker-1", Callers(), None)
    assert [await anext(beating) for _ in range(3)] == [BEAT, 1, BEAT]
    await beating.aclose()
    assert source.closed


@in_virtual_time()
async def test_they_are_removed_and_keep_a_quiet_stream_alive() -> None:
    source = Source((0.1, 1), (60.0, 2))
    beating = with_heartbeats(source.stream(), "talker-1", Callers(), None)
    assert [item async for item in without_heartbeats(beating, 5.0)] == [1, 2]


@in_virtual_time()
async def test_silence_names_the_replica() -> None:
    async def stopped() -> AsyncGenerator[int | Heartbeat]:
        yield BEAT
        await asyncio.sleep(6)
        yield 1

    with pytest.raises(Silence, match="talker-1 has sent nothing for 5 s"):
        await anext(without_heartbeats(stopped(), 5.0))


@in_virtual_time()
async def test_a_caller_that_was_held_up_blames_nobody() -> None:
    """The heartbeats of the time in which its loop stood still are there, but have not been read yet."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    arrived: asyncio.Queue[int | Heartbeat] = asyncio.Queue()

    async def received() -> AsyncGenerator[int | Heartbeat]:
        while True:
            yield await arrived.get()

    def held_up() -> None:
        loop.pass_s(60.0)
        for item in (BEAT, BEAT, 1):
            loop.call_soon(arrived.put_nowait, item)  # as another thread does that receives messages

    loop.call_later(1.0, held_up)
    assert await anext(without_heartbeats(received(), 5.0)) == 1


@in_virtual_time()
async def test_a_timeout_of_the_replica_itself_is_no_silence() -> None:
    async def slow_storage() -> AsyncGenerator[int | Heartbeat]:
        yield BEAT
        raise TimeoutError("the storage is slow")

    with pytest.raises(TimeoutError, match="storage"):
        await anext(without_heartbeats(slow_storage(), 5.0))
