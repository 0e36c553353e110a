"""Places on a decoder: how many streams it can decode in time, on a scripted clock."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from deployments.replicas.admission import DecodingPace, Listener
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.errors import Overloaded

SLOTS = 8
PLENTY_S = 1.0  # of audio in hand


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("deployments.replicas.admission.time", clock)
    return clock


class Streams:
    """Streams that ask for a place one after the other; those who got one, in that order."""

    def __init__(self, pace: DecodingPace, clock: Clock) -> None:
        self.pace = pace
        self._clock = clock
        self.admitted: list[str] = []
        self.listeners: dict[str, Listener] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, ahead_s: float = 0.0) -> None:
        self.tasks[name] = asyncio.create_task(self._hold(name, ahead_s))
        await settle()

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def hear(self, name: str, audio_s: float) -> None:
        """His newest piece has been decoded."""
        listener = self.listeners[name]
        listener.waits = False
        listener.playback.send(audio_s, self._clock.now)
        self.pace.admit()
        await settle()

    async def _hold(self, name: str, ahead_s: float) -> None:
        async with self.pace.place(ahead_s) as listener:
            self.admitted.append(name)
            self.listeners[name] = listener
            await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def streams(clock: Clock) -> Streams:
    """A decoder of which a stream wants an eighth of the time; two can begin at a time."""
    pace = DecodingPace(SLOTS)
    pace.begin(0.12 * FRAME_S, 8 * 0.12 * FRAME_S, 8)
    return Streams(pace, clock)


async def test_others_begin_when_those_before_have_audio_in_hand(streams: Streams) -> None:
    for name in "abc":
        await streams.ask(name)
    assert streams.admitted == ["a", "b"]
    await streams.hear("a", FRAME_S)
    assert streams.admitted == ["a", "b"]
    await streams.hear("a", PLENTY_S)
    assert streams.admitted == ["a", "b", "c"]
    await streams.ask("d")
    assert streams.pace.waiting == 1, "b and c have nothing yet"
    await streams.leave("c")
    assert streams.admitted[3:] == ["d"]


async def test_with_audio_in_hand_more_have_a_place_than_can_be_decoded_for_ever(streams: Streams) -> None:
    for number in range(SLOTS):
        await streams.ask(str(number))
        await streams.hear(str(number), PLENTY_S)
    assert len(streams.admitted) == SLOTS


async def test_audio_that_has_been_played_is_not_in_hand(streams: Streams, clock: Clock) -> None:
    for name in "abcd":
        await streams.ask(name)
        await streams.hear(name, PLENTY_S)
    clock.now += PLENTY_S - FRAME_S
    await streams.ask("e")
    assert streams.pace.waiting == 1
    clock.now += 2 * FRAME_S  # they have nothing left and want nothing: their writers pause
    await asyncio.sleep(2 * FRAME_S)
    assert streams.admitted == ["a", "b", "c", "d", "e"]


async def test_who_came_first_goes_first(streams: Streams, clock: Clock) -> None:
    for name in "abcd":
        await streams.ask(name)
        clock.now += 0.01
    await streams.leave("a")
    assert streams.admitted == ["a", "b", "c"]
    await streams.leave("b")
    assert streams.admitted[3:] == ["d"]


async def test_a_text_that_is_being_heard_goes_on_before_others_begin(streams: Streams) -> None:
    for name in "abc":
        await streams.ask(name)
    await streams.ask("rest", ahead_s=0.1)
    assert streams.admitted == ["a", "b", "rest"]
    for number in range(SLOTS - 3):
        await streams.ask(f"rest {number}", ahead_s=0.1)
    await streams.ask("the last one", ahead_s=0.1)
    assert streams.pace.waiting == 2, "c, and what has no slot"
    await streams.leave("a")
    assert streams.admitted[-1] == "the last one"


async def test_who_has_other_audio_to_hear_first_takes_nobodys_time(streams: Streams) -> None:
    for name in "ab":
        await streams.ask(name)
    await streams.ask("c", ahead_s=9.0)
    assert streams.admitted == ["a", "b", "c"]


async def test_who_leaves_the_queue_is_passed_over(streams: Streams) -> None:
    for name in "abcd":
        await streams.ask(name)
    await streams.leave("c")
    assert streams.pace.waiting == 1
    await streams.leave("a")
    assert streams.admitted == ["a", "b", "d"]
    for name in "bd":
        await streams.leave(name)
    assert (streams.pace.waiting, len(streams.pace._listeners)) == (0, 0)


async def test_as_many_as_have_a_place_may_wait(streams: Streams) -> None:
    for number in range(2 + SLOTS):
        await streams.ask(str(number))
    assert (len(streams.admitted), streams.pace.waiting) == (2, SLOTS)
    async with AsyncExitStack() as stack:
        with pytest.raises(Overloaded, match="2 streams"):
            await stack.enter_async_context(streams.pace.place(0.0))


@pytest.mark.parametrize("frame_s", [FRAME_S, 1e-6], ids=["not even two are in time", "all are in time"])
async def test_only_slots_are_waited_for(clock: Clock, frame_s: float) -> None:
    streams = Streams(DecodingPace(SLOTS), clock)
    streams.pace.begin(frame_s, 8 * frame_s, 8)
    for number in range(SLOTS + 1):
        await streams.ask(str(number))
    assert len(streams.admitted) == SLOTS


async def test_frames_of_several_streams_share_what_a_batch_takes(clock: Clock) -> None:
    """One by one, those of two streams would take all the time there may be."""
    streams = Streams(DecodingPace(SLOTS), clock)
    streams.pace.begin(0.12 * FRAME_S, 0.26 * FRAME_S, 8)
    for number in range(SLOTS):
        await streams.ask(str(number))
    assert len(streams.admitted) == SLOTS


async def test_what_a_frame_takes_is_learned(streams: Streams) -> None:
    for _ in range(100):
        streams.pace.observe(3, 3 * 0.06 * FRAME_S)
    for number in range(SLOTS):
        await streams.ask(str(number))
    assert len(streams.admitted) == 4
