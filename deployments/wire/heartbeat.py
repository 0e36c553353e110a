"""Heartbeats of streams between deployments, so that a caller can tell a replica that works from one that hangs.

A stream may have nothing to send for a long time: its request waits for a slot, or its text pauses. Its replica then
sends a Heartbeat every `HEARTBEAT_S`. A caller that receives nothing for many of these periods knows that the replica
is lost, even if its process still exists (stopped by a signal, or on a node without a network).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from deployments.errors import Silence
from deployments.wire.callers import Callers
from qwen_tts.errors import EngineStopped

Chunk = TypeVar("Chunk")

HEARTBEAT_S = 0.5
# Silence is counted in ticks instead of seconds. So a caller that was itself held up reads what has come meanwhile, and
# does not take it for the silence of the replica.
_TICKS = 5


@dataclass(frozen=True)
class Heartbeat:
    """Sent at the beginning of every stream and in its pauses. `replica` is the name of the replica's Ray actor, or
    None outside a replica."""

    replica: str | None


async def with_heartbeats(
    chunks: AsyncGenerator[Chunk], replica: str | None, callers: Callers, caller: str | None
) -> AsyncGenerator[Chunk | Heartbeat]:
    """Yield `chunks` for `caller`, and a Heartbeat at once and in every pause. `replica` is the name of this one.

    One task iterates over `chunks` from beginning to end. Leaving this iterator ends that task. Raises what `chunks`
    raises, or EngineStopped when the caller is lost.
    """
    arrived: asyncio.Queue[Chunk | None] = asyncio.Queue()
    caller_lost = False

    async def forward() -> None:
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    arrived.put_nowait(chunk)
        finally:
            arrived.put_nowait(None)

    def end() -> None:
        nonlocal caller_lost
        caller_lost = True
        forwarding.cancel()

    forwarding = asyncio.create_task(forward())
    try:
        with callers.watch(caller, end):
            yield Heartbeat(replica)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        chunk = await arrived.get()
                except TimeoutError:
                    yield Heartbeat(replica)
                    continue
                if chunk is not None:
                    yield chunk
                elif caller_lost:
                    raise EngineStopped("the caller of this stream is lost")
                else:
                    await forwarding  # raises the error of `chunks`
                    return
    finally:
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)


async def without_heartbeats(chunks: AsyncIterator[Chunk | Heartbeat], patience_s: float) -> AsyncGenerator[Chunk]:
    """Yield `chunks` without the heartbeats among them. Raises Silence when nothing comes for `patience_s`."""
    replica = None
    while True:
        try:
            async with _ticking(patience_s) as limit:
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not limit.expired():
                raise
            raise Silence(replica, patience_s) from None
        if isinstance(chunk, Heartbeat):
            replica = chunk.replica
        else:
            yield chunk


@asynccontextmanager
async def _ticking(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Time out after the ticks of `seconds`. While the loop stands still, at most one of them passes."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tick(left: int) -> None:
        nonlocal timer
        if left:
            timer = loop.call_later(seconds / _TICKS, tick, left - 1)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_later(seconds / _TICKS, tick, _TICKS - 1)
    try:
        async with asyncio.timeout(None) as limit:
            yield limit
    finally:
        timer.cancel()
