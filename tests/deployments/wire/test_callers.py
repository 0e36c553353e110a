"""Streams end when the replica that called them is lost."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from deployments.wire.callers import Callers
from deployments.wire.heartbeat import Heartbeat, with_heartbeats
from qwen_tts.errors import EngineStopped
from tests.virtual_time import in_virtual_time


class Alive:
    """The callers that live, and how often each was asked."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.asked: list[str] = []

    async def __call__(self, caller: str) -> bool:
        self.asked.append(caller)
        return caller in self.names


@in_virtual_time()
async def test_only_the_streams_of_a_lost_caller_end() -> None:
    alive, ended = Alive("one", "two"), list[str]()
    callers = Callers(alive)
    with (
        callers.watch("one", lambda: ended.append("first of one")),
        callers.watch("one", lambda: ended.append("second of one")),
        callers.watch("two", lambda: ended.append("of two")),
        callers.watch(None, lambda: ended.append("of nobody")),
    ):
        await asyncio.sleep(3)
        assert not ended
        alive.names = {"two"}
        await asyncio.sleep(3)
        assert sorted(ended) == ["first of one", "second of one"], "a stream ended twice, or the wrong one"


@in_virtual_time()
async def test_nobody_is_asked_while_there_are_no_streams() -> None:
    alive = Alive("one")
    callers = Callers(alive)
    for _ in range(2):
        with callers.watch("one", lambda: None):
            await asyncio.sleep(3)
        asked = len(alive.asked)
        assert asked > 0
        await asyncio.sleep(10)
        assert len(alive.asked) <= asked + 1
        alive.asked.clear()


@in_virtual_time()
async def test_a_stream_whose_caller_is_lost_is_closed() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[int]:
        try:
            while True:
                await asyncio.sleep(0.1)
                yield 1
        finally:
            closed.set()

    alive = Alive("ingress")
    beating = with_heartbeats(endless(), "talker", Callers(alive), "ingress")
    assert await anext(beating) == Heartbeat("talker")
    for _ in range(30):
        assert await anext(beating) == 1
    alive.names.clear()
    with pytest.raises(EngineStopped, match="caller"):
        _ = [item async for item in beating]
    assert closed.is_set()
