"""Streams that survive their replicas: what the reader gets, and when a stream is given up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RpcError
from ray.serve.handle import DeploymentHandle

from deployments.errors import Silence, Unavailable, refusal_of
from deployments.wire import streams
from deployments.wire.heartbeat import Heartbeat
from deployments.wire.messages import FrameChunk
from deployments.wire.streams import open_frames
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded
from qwen_tts.request import SpeechRequest
from tests.qwen_tts.tiny import custom
from tests.virtual_time import in_virtual_time

Item = FrameChunk | Heartbeat | Exception | float  # a number is a time in seconds, in which nothing comes
REQUEST = custom()
NAME = "talker-1"


def chunk(*first_codes: int, last: bool = False) -> FrameChunk:
    codes = np.array([[code, 0] for code in first_codes], dtype=np.int16).reshape(-1, 2)
    return FrameChunk(codes, "stop" if last else None)


class Call:
    """One stream of one talker."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = iter(items)
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[FrameChunk | Heartbeat]:
        return self

    async def __anext__(self) -> FrameChunk | Heartbeat:
        found = next(self._items, None)
        if isinstance(found, float):
            await asyncio.sleep(found)
            return await anext(self)
        if found is None:
            raise StopAsyncIteration
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self) -> None:
        self.cancelled = True


class Talkers:
    """A handle whose calls are answered by `answers` in turn."""

    def __init__(self, *answers: Sequence[Item]) -> None:
        self.calls = [Call(items) for items in answers]
        self.requests: list[tuple[SpeechRequest, list[list[int]] | None]] = []
        call = SimpleNamespace(generate=SimpleNamespace(remote=self._generate))
        self.handle = cast("DeploymentHandle[Any]", SimpleNamespace(options=lambda *, stream: call))

    def _generate(self, request: SpeechRequest, rest: None, frames: NDArray[np.int16] | None, caller: None) -> Call:
        self.requests.append((request, None if frames is None else frames.tolist()))
        return self.calls[len(self.requests) - 1]


def lost() -> Exception:
    return ActorDiedError()


async def codes_of(talkers: Talkers, losses: list[BaseException] | None = None) -> list[int]:
    noted: list[BaseException] = [] if losses is None else losses
    async with open_frames(talkers.handle, REQUEST, None, None, silence_s=5.0, lost=noted.append) as chunks:
        return [frame[0] async for chunk in chunks for frame in chunk.codes.tolist()]


@in_virtual_time(streams)
@pytest.mark.parametrize("error", [lost(), EngineStopped("stopped")], ids=["died", "stopped"])
async def test_a_stream_goes_on_with_the_next_frame(error: Exception) -> None:
    losses: list[BaseException] = []
    talkers = Talkers(
        [Heartbeat(NAME), chunk(1), chunk(2, 3), error],
        [chunk(4), Heartbeat(NAME), error],
        [chunk(5), chunk(last=True)],
    )
    assert await codes_of(talkers, losses) == [1, 2, 3, 4, 5]
    begun = [[code, 0] for code in (1, 2, 3)]
    assert [frames for _, frames in talkers.requests] == [None, begun, [*begun, [4, 0]]]
    assert losses == [error, error]
    assert all(call.cancelled for call in talkers.calls)


@in_virtual_time(streams)
async def test_the_first_chunk_after_a_loss_says_so() -> None:
    talkers = Talkers([chunk(1), lost()], [chunk(2), chunk(3, last=True)])
    async with open_frames(talkers.handle, REQUEST, None, None, 5.0, lambda error: None) as chunks:
        assert [one.resumed async for one in chunks] == [False, True, False]


@in_virtual_time(streams)
async def test_the_audio_in_hand_travels_with_the_request() -> None:
    talkers = Talkers([chunk(*range(20)), 1.0, lost()], [chunk(last=True)])
    await codes_of(talkers)
    assert [request.ahead_s for request, _ in talkers.requests] == [0.0, pytest.approx(20 * FRAME_S - 1.0)]


@in_virtual_time(streams)
@pytest.mark.parametrize(("ahead_s", "left_s"), [(5.0, 2.0), (2.0, FRAME_S), (0.0, 0.0)])
async def test_other_audio_is_heard_while_a_stream_has_none_yet(ahead_s: float, left_s: float) -> None:
    talkers = Talkers([Heartbeat(NAME), 3.0, lost()], [chunk(1, last=True)])
    request = replace(REQUEST, ahead_s=ahead_s)
    async with open_frames(talkers.handle, request, None, None, silence_s=5.0, lost=lambda _: None) as chunks:
        assert len([chunk async for chunk in chunks]) == 1
    assert [request.ahead_s for request, _ in talkers.requests] == pytest.approx([ahead_s, left_s])


@in_virtual_time(streams)
async def test_a_stream_without_frames_is_opened_again() -> None:
    assert await codes_of(Talkers([lost()], [chunk(1, last=True)])) == [1]


@in_virtual_time(streams)
async def test_a_stream_that_ends_without_its_last_chunk_goes_on() -> None:
    assert await codes_of(Talkers([chunk(1)], [chunk(2, last=True)])) == [1, 2]


@in_virtual_time(streams)
async def test_a_replica_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []

    async def kill(replica: str) -> None:
        killed.append(replica)

    monkeypatch.setattr(streams, "_kill", kill)
    losses: list[BaseException] = []
    talkers = Talkers([Heartbeat(NAME), chunk(1), 4.9, Heartbeat(NAME), 6.0, chunk(7)], [chunk(2, last=True)])
    assert await codes_of(talkers, losses) == [1, 2]
    assert killed == [NAME]
    assert isinstance(losses[0], Silence)


@in_virtual_time(streams)
async def test_a_request_that_kills_every_replica_is_given_up() -> None:
    dies_at_once: list[list[Item]] = [[Heartbeat(NAME), lost()] for _ in range(10)]
    talkers = Talkers([chunk(1), lost()], *dies_at_once)
    with pytest.raises(Unavailable, match="6 model replicas failed") as caught:
        await codes_of(talkers)
    refusal = refusal_of(caught.value)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "replica_failed", 1.0)
    assert len(talkers.requests) == 6


@in_virtual_time(streams)
async def test_new_frames_between_losses_count() -> None:
    answers: list[list[Item]] = [[chunk(*range(12 * n, 12 * n + 12)), lost()] for n in range(20)]
    talkers = Talkers(*answers, [chunk(last=True)])
    assert await codes_of(talkers) == list(range(240))


@in_virtual_time(streams)
async def test_a_stream_that_has_begun_waits_for_room_and_a_new_one_is_refused() -> None:
    full = Overloaded("full", 0.1)
    assert await codes_of(Talkers([chunk(1), lost()], [full], [full], [chunk(2, last=True)])) == [1, 2]
    with pytest.raises(Overloaded):
        await codes_of(Talkers([full]))
    with pytest.raises(Overloaded):
        await codes_of(Talkers([chunk(1), lost()], *[[full]] * 1000))


@in_virtual_time(streams)
async def test_other_errors_are_raised() -> None:
    talkers = Talkers([chunk(1), InvalidRequest("wrong")], [chunk(2, last=True)])
    with pytest.raises(InvalidRequest, match="wrong"):
        await codes_of(talkers)
    assert len(talkers.requests) == 1
    assert talkers.calls[0].cancelled


@in_virtual_time(streams)
async def test_a_request_that_kills_every_replica_after_a_frame_is_given_up() -> None:
    """Prefill gives one frame, and the first decode step kills the process."""
    dies: list[list[Item]] = [[Heartbeat(NAME), chunk(n), lost()] for n in range(250)]
    talkers = Talkers(*dies, [chunk(last=True)])
    with pytest.raises(Unavailable):
        await codes_of(talkers)
    assert len(talkers.requests) < 50


@in_virtual_time(streams)
async def test_a_replica_that_the_node_has_killed_for_its_memory_is_lost() -> None:
    assert await codes_of(Talkers([chunk(1), OutOfMemoryError("killed")], [chunk(2, last=True)])) == [1, 2]  # type: ignore[no-untyped-call]


@in_virtual_time(streams)
async def test_a_call_that_reached_no_replica_is_made_again() -> None:
    """Serve's response raises the error of its assignment again when it is cancelled."""
    talkers = Talkers([lost()], [chunk(1, last=True)])

    def cancel() -> None:
        raise lost()

    talkers.calls[0].cancel = cancel  # type: ignore[method-assign]
    assert await codes_of(talkers) == [1]


@in_virtual_time(streams)
async def test_a_stream_goes_on_when_its_replica_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, namespace: str) -> None:
        raise RpcError("the head node does not answer")  # type: ignore[no-untyped-call]

    async def at_once(work: Callable[[], None]) -> None:
        work()

    monkeypatch.setattr(ray, "get_actor", unreachable)
    monkeypatch.setattr(asyncio, "to_thread", at_once)
    assert await codes_of(Talkers([Heartbeat(NAME), chunk(1), 6.0], [chunk(2, last=True)])) == [1, 2]


@in_virtual_time(streams)
async def test_a_replica_that_is_still_starting_is_waited_for_and_not_counted_as_lost() -> None:
    losses: list[BaseException] = []
    unheard: list[list[Item]] = [[6.0, chunk(9)] for _ in range(5)]
    assert await codes_of(Talkers(*unheard, [chunk(1, last=True)]), losses) == [1]
    assert losses == []
    with pytest.raises(Unavailable, match="no replica has answered for 30 s") as caught:
        await codes_of(Talkers(*unheard, *unheard))
    assert caught.value.code == "not_ready"
