"""Admission to a decoder: how many streams it can decode in time, on a clock that the test sets."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from deployments.replicas.admission import Admission, DecodeCost, Listener, fits
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
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
    """Streams that request a slot one after the other. `admitted` has those that got one, in that order."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self.admission = admission
        self._clock = clock
        self.admitted: list[str] = []
        self.listeners: dict[str, Listener] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def request(self, name: str, ahead_s: float = 0.0) -> None:
        self.tasks[name] = asyncio.create_task(self._hold(name, ahead_s))
        await settle()

    async def end(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def decoded(self, name: str, audio_s: float) -> None:
        """The newest piece of this stream has been decoded."""
        listener = self.listeners[name]
        listener.waits = False
        listener.playback.send(audio_s, self._clock.now)
        self.admission.admit()
        await settle()

    async def _hold(self, name: str, ahead_s: float) -> None:
        async with self.admission.slot(Playback(requested=self._clock.now, ahead=ahead_s)) as listener:
            self.admitted.append(name)
            self.listeners[name] = listener
            await asyncio.Event().wait()


def decoder(clock: Clock, cost: DecodeCost) -> Streams:
    admission = Admission(SLOTS)
    admission.cost = cost
    return Streams(admission, clock)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def streams(clock: Clock) -> Streams:
    """A decoder that spends an eighth of its time on one stream. Two streams can begin at a time."""
    return decoder(clock, DecodeCost(0.0, 0.12 * FRAME_S))


async def test_streams_begin_when_those_before_them_have_audio_in_hand(streams: Streams) -> None:
    for name in "abc":
        await streams.request(name)
    assert streams.admitted == ["a", "b"]
    await streams.decoded("a", FRAME_S)
    assert streams.admitted == ["a", "b"]
    await streams.decoded("a", PLENTY_S)
    assert streams.admitted == ["a", "b", "c"]
    await streams.request("d")
    assert streams.admission.waiting == 1, "b and c have no audio yet"
    await streams.end("c")
    assert streams.admitted[3:] == ["d"]


async def test_streams_with_audio_in_hand_keep_nobody_out(streams: Streams) -> None:
    for number in range(SLOTS):
        await streams.request(str(number))
        await streams.decoded(str(number), PLENTY_S)
    assert len(streams.admitted) == SLOTS


async def test_audio_that_has_been_played_is_not_in_hand(streams: Streams, clock: Clock) -> None:
    for name in "abcd":
        await streams.request(name)
        await streams.decoded(name, PLENTY_S)
    clock.now += PLENTY_S - FRAME_S
    await streams.request("e")
    assert streams.admission.waiting == 1
    clock.now += 2 * FRAME_S  # the streams have no audio left and want none, because their writers pause
    await asyncio.sleep(2 * FRAME_S)
    assert streams.admitted == ["a", "b", "c", "d", "e"]


async def test_the_first_request_is_admitted_first(streams: Streams, clock: Clock) -> None:
    for name in "abcd":
        await streams.request(name)
        clock.now += 0.01
    await streams.end("a")
    assert streams.admitted == ["a", "b", "c"]
    await streams.end("b")
    assert streams.admitted[3:] == ["d"]


async def test_a_text_that_is_playing_continues_before_others_begin(streams: Streams) -> None:
    for name in "abc":
        await streams.request(name)
    await streams.request("rest", ahead_s=0.1)
    assert streams.admitted == ["a", "b", "rest"]
    for number in range(SLOTS - 3):
        await streams.request(f"rest {number}", ahead_s=0.1)
    await streams.request("the last one", ahead_s=0.1)
    assert streams.admission.waiting == 2, "c, and the piece that has no slot"
    await streams.end("a")
    assert streams.admitted[-1] == "the last one"


async def test_a_stream_that_plays_after_other_audio_needs_no_time_now(streams: Streams) -> None:
    for name in "ab":
        await streams.request(name)
    await streams.request("c", ahead_s=9.0)
    assert streams.admitted == ["a", "b", "c"]


async def test_a_stream_cancelled_in_the_queue_is_passed_over(streams: Streams) -> None:
    for name in "abcd":
        await streams.request(name)
    await streams.end("c")
    assert streams.admission.waiting == 1
    await streams.end("a")
    assert streams.admitted == ["a", "b", "d"]
    for name in "bd":
        await streams.end(name)
    assert (streams.admission.waiting, streams.admission.in_use) == (0, 0)


async def test_as_many_streams_as_there_are_slots_may_wait(streams: Streams) -> None:
    for number in range(2 + SLOTS):
        await streams.request(str(number))
    assert (len(streams.admitted), streams.admission.waiting) == (2, SLOTS)
    async with AsyncExitStack() as stack:
        with pytest.raises(Overloaded, match="2 streams"):
            await stack.enter_async_context(streams.admission.slot(Playback(requested=100.0)))


@pytest.mark.parametrize("frame_s", [FRAME_S, 1e-6], ids=["not even two are in time", "all are in time"])
async def test_streams_wait_for_slots_only(clock: Clock, frame_s: float) -> None:
    streams = decoder(clock, DecodeCost(0.0, frame_s))
    for number in range(SLOTS + 1):
        await streams.request(str(number))
    assert len(streams.admitted) == SLOTS


async def test_frames_of_several_streams_share_the_cost_of_a_batch(clock: Clock) -> None:
    """If each frame were a batch of its own, two streams would take all the time that may be used."""
    streams = decoder(clock, DecodeCost(0.1 * FRAME_S, 0.02 * FRAME_S))
    for number in range(SLOTS):
        await streams.request(str(number))
    assert len(streams.admitted) == SLOTS


async def test_the_cost_of_decoding_follows_the_machine(streams: Streams) -> None:
    for _ in range(100):
        streams.admission.observe(3, 3 * 0.06 * FRAME_S)
    for number in range(SLOTS):
        await streams.request(str(number))
    assert len(streams.admitted) == 4


async def test_a_machine_that_once_kept_up_admits_by_time_also_when_it_is_slow(streams: Streams) -> None:
    for _ in range(100):
        streams.admission.observe(1, FRAME_S)
    assert not streams.admission.cost.allows_two_streams
    for name in "ab":
        await streams.request(name)
    assert streams.admitted == ["a"]


async def test_a_stream_whose_talker_gives_no_frame_keeps_nobody_out(streams: Streams, clock: Clock) -> None:
    """The stream waits for a slot of its talker. Other streams may have another talker."""
    for name in "abcd":
        await streams.request(name)
    clock.now += 1.9 * FRAME_S
    streams.admission.admit()
    await settle()
    assert streams.admitted == ["a", "b"], "their first frames may come at any time"
    clock.now += 0.2 * FRAME_S
    streams.admission.admit()
    await settle()
    assert streams.admitted == ["a", "b", "c", "d"]
    clock.now += 2.1 * FRAME_S
    streams.listeners["a"].waits = streams.listeners["b"].waits = True
    await streams.request("e")
    assert streams.admission.waiting == 1, "now they want their first frames decoded"


@pytest.mark.parametrize(
    ("one_s", "many_s", "cost"),
    [
        (0.030, 0.100, DecodeCost(0.020, 0.010)),
        (0.010, 0.080, DecodeCost(0.0, 0.010)),
        (0.005, 0.080, DecodeCost(0.0, 0.075 / 7)),
        (0.100, 0.100, DecodeCost(0.100 - 0.100 / 16, 0.100 / 16)),
        (0.200, 0.100, DecodeCost(0.200 - 0.100 / 16, 0.100 / 16)),
    ],
    ids=["both parts", "no cost of a batch", "one is too fast", "one takes as long as many", "noise"],
)
def test_the_cost_by_two_batches(one_s: float, many_s: float, cost: DecodeCost) -> None:
    measured = DecodeCost.measured(one_s, many_s, 8)
    assert (measured.batch_s, measured.frame_s) == pytest.approx((cost.batch_s, cost.frame_s))


@pytest.mark.parametrize(
    ("batch", "frame", "frames"),
    [(0.0, 0.01, 50), (0.25, 0.025, 10), (0.0, 0.1, 8), (0.6, 0.01, 8)],
    ids=["half a frame's time", "less the batch's own", "at least eight", "a batch alone takes too long"],
)
def test_frames_of_a_batch(batch: float, frame: float, frames: int) -> None:
    assert DecodeCost(batch * FRAME_S, frame * FRAME_S).frames_at_once == frames


BEGINS = -2.0  # frames in hand of a stream that begins


@pytest.mark.parametrize(
    ("batch", "frame", "in_hand", "expected"),
    [
        (0.0, 0.25, [BEGINS], True),  # within 2 frames it needs 4: 4 * 0.25 <= 0.5 * 2
        (0.0, 0.26, [BEGINS], False),
        (0.0, 0.125, [BEGINS, BEGINS], True),
        (0.0, 0.126, [BEGINS, BEGINS], False),
        (0.0, 0.25, [BEGINS, 12.0], True),  # 12 frames in hand: it needs nothing within any horizon
        (0.0, 0.25, [BEGINS, 2.0, 2.0], False),  # they need nothing within 2 frames, but within 4: 6 + 2 + 2
        (0.0, 0.17, [BEGINS, 2.0, 2.0], True),  # (14 + 10 + 10) * 0.17 <= 0.5 * 12
        (0.0, 0.18, [BEGINS, 2.0, 2.0], False),
        (0.48, 0.01, [0.0], True),  # a frame a batch: 2 * (0.48 + 0.01) <= 0.5 * 2
        (0.5, 0.01, [0.0], False),
        (0.4, 0.02, [0.0] * 4, True),  # a batch holds a frame of each: 2 * 0.4 + 8 * 0.02 <= 0.5 * 2
        (0.4, 0.03, [0.0] * 4, False),
        (0.6, 0.1, [11.0], True),  # one frame is one batch, within 12: 0.6 + 0.1 <= 0.5 * 12
    ],
)
def test_what_fits(batch: float, frame: float, in_hand: list[float], expected: bool) -> None:
    """Costs and audio in hand are in units of one frame's time."""
    assert fits(DecodeCost(batch * FRAME_S, frame * FRAME_S), [frames * FRAME_S for frames in in_hand]) == expected
