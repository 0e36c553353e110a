"""Stalls are visible, the shares of the processes add up, and a generator that cannot keep up reports it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from loadtest.arrivals import offsets_s
from loadtest.client import Target
from loadtest.generate import Planned, generate, watch
from loadtest.record import Record
from loadtest.summary import summarise
from tests.loadtest.fake_server import FakeServer, Step, running, tone
from tests.loadtest.measuring import REQUEST, sent, virtual
from tests.virtual_time import VirtualTimeLoop


@contextmanager
def in_a_thread(server: FakeServer) -> Iterator[FakeServer]:
    """Run the server in a thread, for clients in other processes."""
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with running(server):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def _stalling() -> FakeServer:
    """Begins nothing between 0.2 and 2.2 s from now; otherwise it answers after 10 ms."""
    now = asyncio.get_running_loop().time()
    return FakeServer(lambda _: [Step(0.01, tone(0.1))], stall=(now + 0.2, now + 2.2))


@virtual
async def test_an_open_loop_shows_a_stall_and_a_closed_loop_hides_it() -> None:
    moments = offsets_s("poisson", 40, 100, seed=3)
    async with running(_stalling()) as server:
        records, _ = await sent(Target(server.url), moments)
    run = summarise(records, [], 0.0, 20)
    waits_ms = [10 + (1000 * max(0.0, 2.2 - moment) if moment >= 0.2 else 0) for moment in moments]
    assert [record.heard_ms for record in records] == pytest.approx(waits_ms, abs=0.001)
    assert sum(wait_ms > 1000 for wait_ms in waits_ms) > 20, "of 2.5 s of callers those of one wait for over a second"
    assert run.everything.heard_ms["max"] == pytest.approx(max(waits_ms), abs=0.001)
    assert max(moment.heard_p95_ms or 0 for moment in run.timeline) > 1500

    async with running(_stalling()) as server:
        records, _ = await sent(Target(server.url), [None] * 100, users=1)
    hidden = summarise(records, [], 0.0, 20).everything.heard_ms
    assert hidden["p95"] == pytest.approx(10)
    assert hidden["max"] == pytest.approx(2010, abs=10), "one user waited once, and the other requests were never sent"


@virtual
async def test_a_request_that_is_sent_late_is_late_all_the_same() -> None:
    async with running(FakeServer()) as server:
        (record, late), _ = await sent(Target(server.url), [0.0, -0.7])
    assert late.late_ms == pytest.approx(700)
    assert late.ttfa_ms == pytest.approx(700)
    assert late.rtf == 0, "the server is not to blame"
    assert record.late_ms == 0


def test_processes_share_the_work_and_each_request_is_sent_once() -> None:
    planned = [Planned(index, REQUEST, 0.02 * index) for index in range(30)]
    seen = list[int]()

    def enough(record: Record) -> bool:
        seen.append(record.index)
        return False

    with in_a_thread(FakeServer()) as server:
        generated = generate(Target(server.url), planned, processes=2, enough=enough)
        came = len(server.came)
    assert [record.index for record in generated.records] == list(range(30))
    assert sorted(seen) == list(range(30))
    assert came == 30
    assert not generated.stopped
    assert len(generated.efforts) == 2
    assert all(effort.lags_ms and effort.cpu_share > 0 for effort in generated.efforts)


def test_a_run_ends_when_enough_is_seen() -> None:
    planned = [Planned(index, REQUEST, 0.05 * index) for index in range(1000)]
    with in_a_thread(FakeServer()) as server:
        generated = generate(Target(server.url), planned, enough=lambda record: record.index >= 4)
    assert generated.stopped
    assert 5 <= len(generated.records) < 200


def test_users_of_a_closed_loop_send_one_after_the_other() -> None:
    planned = [Planned(index, REQUEST, None) for index in range(9)]
    with in_a_thread(FakeServer(lambda _: [Step(0.05, tone(0.1))])) as server:
        generated = generate(Target(server.url), planned, processes=2, users=3)
    records = generated.records
    assert len(records) == 9
    under_way = [sum(other.sent_s <= record.sent_s < other.end_s for other in records) for record in records]
    assert max(under_way) <= 3
    assert all(record.late_ms == 0 for record in records)
    with in_a_thread(FakeServer()) as server:
        assert len(generate(Target(server.url), planned, processes=2, users=1).records) == 9


@pytest.mark.parametrize(("block_s", "valid"), [(0.0, True), (0.2, False)])
@virtual
async def test_a_blocked_event_loop_makes_a_run_invalid(block_s: float, valid: bool) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def work() -> None:
        for _ in range(5):
            await asyncio.sleep(0.055)
            loop.pass_s(block_s)  # the fault

    lags = await watch(asyncio.create_task(work()), lambda: False)
    async with running(FakeServer(lambda _: [Step(0.1, tone(0.1))])) as server:
        records, _ = await sent(Target(server.url), [0.0])
    check = summarise(records, lags, 0.1, allowed_ms=100).self_check
    assert check.valid is valid
    assert check.lag_ms["max"] == pytest.approx(1000 * block_s - 5 if block_s else 0, abs=0.001)


def test_a_process_that_dies_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Planned(0, REQUEST, None)  # an open loop without a schedule
    with pytest.raises(RuntimeError, match="died"):
        generate(Target("http://127.0.0.1:9"), [broken])
    assert "a request of an open loop has no scheduled time" in capfd.readouterr().err


class _Times(NamedTuple):
    """CPU times with the fields that psutil has on Linux."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


def test_what_other_guests_took_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([_Times(user=5.0, steal=1.0), _Times(user=9.0, idle=4.0, steal=3.0, guest=2.0)])
    monkeypatch.setattr("loadtest.generate.psutil.cpu_times", lambda: next(times))
    found = generate(Target(url="http://127.0.0.1:9"), [])
    assert found.stolen_share == pytest.approx(0.2)
