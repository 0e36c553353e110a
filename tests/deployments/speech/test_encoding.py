"""Encoding runs in separate threads, and the audio that is held for slow readers is bounded."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deployments.speech import audio_budget
from deployments.speech.audio_budget import AudioBudget
from deployments.speech.encoding import AudioOutput, BatchRoom, EncodedSpeech, SpeechEncoding
from deployments.wire.messages import AudioChunk, Usage
from qwen_tts.errors import InvalidRequest, Overloaded

PCM = AudioOutput("pcm", 24000, None, 1.0)
SECOND = bytes(48_000)


@asynccontextmanager
async def speech(seconds: int) -> AsyncIterator[AsyncIterator[AudioChunk]]:
    async def chunks() -> AsyncIterator[AudioChunk]:
        for left in range(seconds - 1, -1, -1):
            yield AudioChunk(SECOND, None if left else "stop", None if left else Usage(1, 0, 1))

    yield chunks()


async def read(encoded: EncodedSpeech) -> bytes:
    return b"".join([piece async for piece in encoded])


async def test_slow_work_of_others_does_not_delay_a_stream() -> None:
    """Every thread of asyncio's own pool is blocked until the stream has ended."""
    ended, loop = threading.Event(), asyncio.get_running_loop()
    await asyncio.to_thread(lambda: None)
    held = [asyncio.create_task(asyncio.to_thread(ended.wait, 60)) for _ in range(64)]
    await asyncio.sleep(0)
    try:
        async with SpeechEncoding(10**9).open(speech(3), PCM, whole=False) as encoded:
            audio = await read(encoded)
    finally:
        loop.call_soon(ended.set)
        results = await asyncio.gather(*held)
    assert len(audio) == 3 * len(SECOND)
    assert all(results), "a thread of that pool was free before the stream ended"


async def test_items_of_a_batch_share_their_room() -> None:
    encoding, room = SpeechEncoding(10**9), BatchRoom(3 * len(SECOND))
    async with encoding.open(speech(2), PCM, whole=True, room=room) as encoded:
        assert await read(encoded) == 2 * SECOND
    with pytest.raises(InvalidRequest, match="send fewer items") as caught:
        async with encoding.open(speech(2), PCM, whole=True, room=room) as encoded:
            await read(encoded)
    assert caught.value.code == "batch_too_large"


async def test_whole_files_beyond_the_budget_are_refused_and_give_their_room_back() -> None:
    encoding = SpeechEncoding(3 * len(SECOND))
    async with encoding.open(speech(2), PCM, whole=True) as first:
        assert await read(first) == 2 * SECOND
        with pytest.raises(Overloaded, match="too many whole files"):
            async with encoding.open(speech(2), PCM, whole=True) as second:
                await read(second)
    async with encoding.open(speech(3), PCM, whole=True) as third:
        assert await read(third) == 3 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_stream_far_ahead_of_its_playback_waits_while_the_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, slept = Clock(), 0.0
    budget = AudioBudget(10 * len(SECOND), clock)

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        clock.now_s += seconds

    monkeypatch.setattr(audio_budget.asyncio, "sleep", sleep)  # type: ignore[attr-defined]  # the module it imports
    with budget.share() as share:
        for _ in range(10):
            await share.send(len(SECOND), 1.0)
        assert slept == 0.0, "as fast as it is made while there is room"
        for _ in range(20):
            await share.send(len(SECOND), 1.0)
        assert slept == pytest.approx(20.0, abs=0.5), "then at the pace of the playback"
        assert not budget.exceeded
    with budget.share() as whole:
        whole.collect(10 * len(SECOND))


async def test_a_listener_who_hears_all_that_comes_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is not ahead never waits, even if others use the whole budget."""
    clock = Clock()
    budget = AudioBudget(1, clock)

    async def sleep(seconds: float) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr(audio_budget.asyncio, "sleep", sleep)  # type: ignore[attr-defined]  # the module it imports
    with budget.share() as share:
        for _ in range(50):
            await share.send(len(SECOND), 1.0)
            clock.now_s += 1.0


async def test_speech_that_is_faster_is_sent_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 s of audio at twice the speed are heard in 10 s, of which 5 may be ahead."""
    clock, slept = Clock(), 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        clock.now_s += seconds

    encoding = SpeechEncoding(1)
    monkeypatch.setattr(encoding, "budget", AudioBudget(1, clock))
    monkeypatch.setattr(audio_budget.asyncio, "sleep", sleep)  # type: ignore[attr-defined]  # the module it imports
    async with encoding.open(speech(20), AudioOutput("pcm", 24000, None, 2.0), whole=False) as encoded:
        await read(encoded)
    assert slept == pytest.approx(5.0, abs=0.5)
