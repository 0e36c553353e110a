"""Admission at the edge: single rules, and whole services in virtual time whose machines are simulated."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from deployments.speech import admission as admission_module
from deployments.speech.admission import Admission, Place
from deployments.speech.edge_metrics import LineState
from deployments.speech.terms import Priority, Terms
from qwen_tts.errors import Overloaded
from tests.deployments.speech.simulated import MODEL, Load, Machine, Service, simulated
from tests.virtual_time import in_virtual_time

virtual = in_virtual_time(admission_module)


def small(streams: int) -> float:
    """A machine that makes one stream at six times real time, and ten of them just in time."""
    return 0.006 + 0.0065 * streams


class Callers:
    """Requests by name. `admitted` has those that got a place, in that order; `refused` the others."""

    def __init__(self, limit: float = 2.0) -> None:
        self.admission = Admission()
        self.line = self.admission._line(MODEL)
        self.line.limit.limit = limit
        self.line.limit.growing_fast = False
        self.admitted: list[str] = []
        self.refused: dict[str, float] = {}  # the seconds after which each may come back
        self.places: dict[str, Place] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def request(
        self, *names: str, wait_s: float = 100.0, priority: Priority = "interactive", due_s: float | None = None
    ) -> None:
        for name in names:
            self._tasks[name] = asyncio.create_task(self._hold(name, Terms(priority, wait_s, name.encode()), due_s))
            await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await settle()

    async def _hold(self, name: str, terms: Terms, due_s: float | None) -> None:
        try:
            async with self.admission.place(MODEL, terms, due_s=due_s) as place:
                self.admitted.append(name)
                self.places[name] = place
                await asyncio.Event().wait()
        except Overloaded as refusal:
            self.refused[name] = refusal.retry_after_s


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@virtual
async def test_a_lost_replica_is_no_slow_machine() -> None:
    """The pause of a stream that goes on on another replica does not lower the limit; any other pause does."""
    limits = []
    for resumed in (True, False):
        callers = Callers(limit=8.0)
        await callers.request("one")
        place = callers.places["one"]
        for _ in range(20):
            place.made(0.32)
            await asyncio.sleep(0.1)
        await asyncio.sleep(5.0)
        place.made(0.32, steady=not resumed)
        limits.append(callers.line.limit.limit)
        await callers.end("one")
    assert limits[0] == 8.0
    assert limits[1] < 8.0


@virtual
async def test_places_go_by_class_then_by_arrival() -> None:
    callers = Callers()
    await callers.request("a", "b")
    await callers.request("batch", priority="batch", wait_s=50.0)
    await callers.request("patient", wait_s=90.0)
    await callers.request("hurried", wait_s=60.0)
    await callers.end("a", "b")
    assert callers.admitted == ["a", "b", "patient", "hurried"]
    await callers.end("patient")
    assert callers.admitted[-1] == "batch"


@virtual
async def test_a_place_is_free_after_the_last_chunk_although_the_stream_is_still_read() -> None:
    callers = Callers(limit=1.0)
    await callers.request("a", "b")
    callers.places["a"].made(0.08)
    await settle()
    assert callers.admitted == ["a"]
    callers.places["a"].made(0.0, last=True)
    await settle()
    assert callers.admitted == ["a", "b"]
    await callers.end("a")
    assert callers.line.in_use == 1, "a's place was given back twice"


@virtual
async def test_a_request_is_refused_when_its_time_has_passed_not_when_its_turn_comes() -> None:
    callers = Callers()
    await callers.request("a", "b")
    await callers.request("c", wait_s=2.0)
    await asyncio.sleep(1.9)
    assert not callers.refused
    await asyncio.sleep(0.2)
    assert list(callers.refused) == ["c"]
    await callers.end("a")
    assert callers.admitted == ["a", "b"]


@virtual
async def test_a_request_that_would_wait_too_long_is_refused_at_once() -> None:
    callers = Callers()
    await callers.request("a", "b", "c", "d", "e", wait_s=5.0)  # two places for 3 s: one is free every 1.5 s
    assert list(callers.refused) == ["e"], "the third in the line may wait for 3.75 s, or for 2 s more"
    assert callers.refused["e"] == 9
    await callers.request("no patience", wait_s=0.0)
    assert list(callers.refused) == ["e", "no patience"]


@virtual
async def test_refused_requests_get_different_times() -> None:
    callers = Callers(limit=1.0)
    await callers.request("a")
    await callers.request("b", "c", "d", wait_s=0.0)
    times = [callers.refused[name] for name in "bcd"]
    assert times[0] + 3 <= times[1]
    assert times[1] + 3 <= times[2], "places of 3 s were promised at the same time"


@virtual
async def test_a_request_at_its_promised_time_goes_before_new_ones() -> None:
    callers = Callers(limit=1.0)
    await callers.request("a")
    await callers.request("b", wait_s=0.0)
    await callers.request("new")
    await asyncio.sleep(callers.refused["b"])
    await callers.request("b", wait_s=50.0)
    await callers.end("a")
    assert callers.admitted == ["a", "b"]


@virtual
async def test_a_further_piece_is_never_refused_and_goes_over_the_limit_when_it_is_due() -> None:
    callers = Callers()
    await callers.request("a", "b", "new")
    await callers.request("due", due_s=1.0)
    assert callers.admitted == ["a", "b", "due"]
    await callers.request("ahead", due_s=30.0)
    await asyncio.sleep(24.0)
    assert callers.admitted == ["a", "b", "due"], "it took a place before newcomers"
    await callers.end("a", "due")
    assert callers.admitted == ["a", "b", "due", "new"]
    await asyncio.sleep(1.5)
    assert callers.admitted[-1] == "ahead"
    assert callers.line.in_use == 3


@virtual
async def test_requests_that_leave_the_line_or_their_place_leave_nothing() -> None:
    callers = Callers()
    await callers.request("a", "b", "c", "d")
    await callers.end("c")
    await callers.end("a")
    assert callers.admitted == ["a", "b", "d"]
    await callers.end("b", "d")
    assert (callers.line.in_use, len(callers.line._waiting), len(callers.line._held)) == (0, 0, 0)


@virtual
async def test_a_text_that_is_being_written_does_not_count() -> None:
    callers, complete = Callers(limit=1.0), False
    async with AsyncExitStack() as stack:
        terms = Terms("interactive", 0.0, b"live")
        live = await stack.enter_async_context(callers.admission.place(MODEL, terms, counts=lambda: complete))
        for _ in range(20):  # the writer pauses, and the listener hears nothing
            await asyncio.sleep(1.0)
            live.made(0.08)
        assert callers.line.limit.limit == 1.0
        await callers.request("a", "b")
        assert callers.admitted == ["a"]
        complete = True
        await callers.end("a")
        assert callers.admitted == ["a"], "the complete text needs the machine"


@virtual
async def test_a_full_replica_lowers_the_limit_once_in_a_round() -> None:
    callers = Callers(limit=8.0)
    await callers.request(*"abcde")
    for _ in range(9):
        callers.admission.replica_is_full(MODEL)
    assert callers.line.limit.limit == pytest.approx(7.2)


@simulated
async def test_ten_times_too_many_requests() -> None:
    """Three minutes. Each refused request comes back once, at the time that it was told."""
    service = Service(Machine(small))
    load = Load(service)
    await load.run(37.0, 180.0, retries=True)
    assert max(one.waited_s for one in load.spoken) <= service.max_wait_s + 0.001
    at_once = sum(one.waited_s < 0.005 for one in load.refused)
    assert at_once >= 0.95 * len(load.refused), "refusals come late"
    assert len(load.second) >= 100
    assert sum(one.underruns is not None for one in load.second) >= 0.8 * len(load.second)
    assert sum(bool(one.underruns) for one in load.spoken) <= len(load.spoken) / 200
    assert len(load.spoken) >= 500, "places were left empty"  # 3.25 s each: 9 s of audio a second
    after = Load(service)
    await after.run(2.0, 30.0, name="later ")
    assert len(after.refused) <= 0.1 * len(after.spoken), "the overload is over"


@simulated
async def test_a_light_load_never_waits_long_and_never_underruns() -> None:
    load = Load(Service(Machine(small)))
    await load.run(2.0, 100.0)
    assert not load.refused
    assert not any(one.underruns for one in load.spoken)
    assert sorted(one.waited_s for one in load.spoken)[len(load.spoken) * 95 // 100] < 0.5


@simulated
async def test_a_big_machine_is_full_within_seconds() -> None:
    service = Service(Machine(lambda streams: 0.004 + 0.0004 * streams))
    load = Load(service)
    await load.run(60.0, 2.0)
    assert not load.refused
    assert service.machine.most >= 50
    full = Load(service)
    await full.run(80.0, 30.0, name="more ")
    assert service.machine.most >= 100
    assert sum(bool(one.underruns) for one in full.spoken) <= len(full.spoken) / 200


@simulated
async def test_a_machine_slower_than_real_time_still_serves() -> None:
    """Its streams share batches, so it serves more requests if many run at the same time."""
    service = Service(Machine(lambda streams: 0.2 + 0.02 * streams))
    load = Load(service)
    await load.run(1.0, 60.0)
    assert service.limit == float("inf")
    assert len(load.refused) < 0.1 * len(load.spoken)


@simulated
async def test_the_limit_follows_a_machine_that_becomes_slower_and_faster() -> None:
    machine = Machine(small)
    service = Service(machine)
    await Load(service).run(6.0, 30.0, name="a")
    fast = service.limit
    machine.step_s = lambda streams: 3 * small(streams)
    await Load(service).run(6.0, 10.0, name="b")
    slow = Load(service)
    await slow.run(6.0, 60.0, name="c")
    assert service.limit < fast / 2
    assert sum(bool(one.underruns) for one in slow.spoken) <= len(slow.spoken) / 20
    machine.step_s = small
    await Load(service).run(6.0, 20.0, name="d")
    assert service.limit > 0.8 * fast


@virtual
async def test_operators_see_the_line() -> None:
    callers = Callers()
    assert callers.admission.state(MODEL) == LineState(
        limit=2.0, in_use=0, waiting=0, expected_wait_s=0.0, refusals={"wait": 0, "expired": 0, "replica": 0}
    )
    await callers.request("a", "b", "c")
    await callers.request("hurried", wait_s=0.0)
    state = callers.admission.state(MODEL)
    assert (state.in_use, state.waiting, state.refusals["wait"]) == (2, 1, 1)
    await callers.request("d")
    assert callers.admission.state(MODEL).expected_wait_s > state.expected_wait_s > 0
    await callers.end("a", "b", "c", "d")
    assert callers.admission.state(MODEL).in_use == 0
    callers.line.limit.limit = float("inf")
    assert callers.admission.state(MODEL).limit is None
