"""Each ending of a stream is recognised, faults come when they are due, and clients that disturb are not measured."""

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import click
import numpy as np
import pytest

from loadtest import client, generate
from loadtest.bench import Bench
from loadtest.client import Target
from loadtest.faults import run as faults_run
from loadtest.faults.disturbances import LEFT, READING, WHOLE
from loadtest.faults.hands import FaultFailed
from loadtest.faults.result import FaultResult
from loadtest.faults.run import Disturbances, run
from loadtest.faults.schedule import Action, Fault, Kind, schedule
from loadtest.record import Refusal
from loadtest.scenarios import Request, RequestOptions
from tests.loadtest import fake_server
from tests.loadtest.fake_server import FakeServer, Step, running, tone
from tests.loadtest.measuring import REQUEST, TEXT, sent
from tests.virtual_time import in_virtual_time

virtual = in_virtual_time(client, generate, fake_server, faults_run, sys.modules["tests.loadtest.measuring"])


@dataclass
class _Hand:
    """Notes the faults. The kinds in `missing` have no replica."""

    missing: Collection[Kind] = ()
    struck: list[Fault] = field(default_factory=list)

    def check(self, kinds: Iterable[Kind], actions: Collection[Action]) -> None:
        raise AssertionError("the command checks")

    async def strike(self, fault: Fault) -> str:
        if fault.kind in self.missing:
            raise FaultFailed(f"no {fault.kind}")
        self.struck.append(fault)
        return "one"


def _disturbances(
    for_s: float, faults: Sequence[Fault] = (), hand: _Hand | None = None, leavers: int = 0, slow_readers: int = 0
) -> Disturbances:
    return Disturbances(hand or _Hand(), faults, for_s, leavers, slow_readers, slow_bytes_per_s=1000)


@pytest.fixture(autouse=True)
def _few_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual time the event loop is never late, and every look at it costs real time."""
    monkeypatch.setattr(generate, "_TICK_S", 1.0)


async def _run(
    server: FakeServer, disturbances: Disturbances, requests: Sequence[Request], streams: int
) -> FaultResult:
    target = Target(server.url, timeout_s=3.0)
    bench = Bench(
        target, RequestOptions(), "custom_voice", "closed", len(requests), streams, seed=1, processes=1, allowed_ms=20
    )
    return await run(bench, requests, disturbances, tolerance_steps=2)


def _changed(sample: int, steps: int) -> bytes:
    changed = np.frombuffer(tone(0.2), "<i2").copy()
    changed[sample] += steps
    return changed.tobytes()


@virtual
async def test_each_ending_of_a_stream_is_told_apart() -> None:
    # The first two are undisturbed.
    pieces = {2: _changed(2400, 2), 3: _changed(2400, 3), 4: tone(0.1), 5: tone(0.4)}
    faults: dict[int, fake_server.Fault] = {
        7: "short",
        8: "reset",
        9: Refusal(status=503, code="draining", retry_after_s=2.0),
        10: Refusal(status=429, code="rate_limit_exceeded", retry_after_s=1.0),
        11: Refusal(status=503, code="replica_failed", retry_after_s=None),
        12: 500,
    }

    def script(number: int) -> list[Step]:
        return [Step(10.0 if number == 13 else 0.1, pieces.get(number, tone(0.2)))]

    async with running(FakeServer(script, faults=faults)) as server:
        result = await _run(server, _disturbances(10.5), [REQUEST], streams=1)
    seen = [(stream.ending, stream.detail, stream.differs_at_s) for stream in result.streams[:12]]
    assert seen == [
        ("equal", "", None),
        ("different", "", 0.1),
        ("different", "", 0.1),
        ("different", "", 0.2),
        ("equal", "", None),
        ("cut", "truncated", None),
        ("cut", "reset", None),
        ("refused", "503 draining", None),
        ("refused", "429 rate_limit_exceeded", None),
        ("error", "503 replica_failed", None),
        ("error", "500 without a code", None),
        ("failed", "timeout", None),
    ]
    assert [stream.largest_steps for stream in result.streams[:5]] == [2, 3, 0, 0, 0]
    counts = result.disturbed
    assert (counts.cut, counts.refused, counts.different) == (2, 2, 3)
    assert counts.errors == {"503 replica_failed": 1, "500 without a code": 1}
    assert counts.failed == {"timeout": 1}
    assert counts.equal == counts.identical + 1 == counts.streams - 10
    assert counts.largest_steps == 2
    assert (result.undisturbed.streams, result.undisturbed.identical) == (1, 1)
    pause = result.streams[8].sent_s - result.streams[7].end_s
    assert pause == pytest.approx(2.0), "a refused caller waits as long as the server asks for"


@virtual
async def test_a_gap_between_pieces_is_the_worst_silence() -> None:
    def script(number: int) -> list[Step]:
        return [Step(0.1, tone(0.2)), Step(0.7 if number == 3 else 0.1, tone(0.2))]

    async with running(FakeServer(script)) as server:
        result = await _run(server, _disturbances(2.0), [REQUEST], streams=1)
    assert result.disturbed.underran == 1
    assert result.disturbed.worst_silence_ms == pytest.approx(500)
    assert result.disturbed.first_audio_ms["p95"] == pytest.approx(100)
    assert result.undisturbed.underran == 0


@virtual
async def test_faults_come_when_they_are_due_and_those_that_fail_are_told() -> None:
    hand = _Hand(missing=["ingress"])
    planned = schedule(["talker", "ingress"], ["kill"], 1.0, 4.0, seed=5)
    async with running(FakeServer(lambda _: [Step(0.3, tone(0.2))])) as server:
        result = await _run(server, _disturbances(4.0, planned, hand), [REQUEST] * 3, streams=2)
    assert hand.struck == [planned[0], planned[2]]
    assert [fault.at_s for fault in result.faults] == pytest.approx([fault.at_s for fault in planned])
    assert [(fault.happened, fault.what) for fault in result.faults] == [(True, "one"), (False, "no ingress")] * 2
    assert {stream.request for stream in result.streams} == {0, 1, 2}
    assert max(stream.sent_s for stream in result.streams) < 4.0


@virtual
async def test_streams_that_fail_undisturbed_cannot_be_compared() -> None:
    async with running(FakeServer(fault=503)) as server:
        with pytest.raises(click.ClickException, match=r"2 of 2 streams failed before any fault \(http 503: 2\)"):
            await _run(server, _disturbances(1.0), [REQUEST] * 2, streams=2)


@virtual
async def test_clients_that_leave_or_read_slowly_are_counted_apart() -> None:
    script = [Step(0.1, tone(0.2))] * 4
    async with running(FakeServer(lambda _: script)) as server:
        disturbances = _disturbances(2.0, leavers=10, slow_readers=2)
        result = await _run(server, disturbances, [REQUEST, replace(REQUEST, text=TEXT)], streams=2)
    assert result.disturbed.identical == result.disturbed.streams > 0
    assert result.leavers[LEFT] + result.leavers.get(WHOLE, 0) == 10
    assert result.leavers[LEFT] >= 7, "each leaves before its stream has ended"
    assert result.slow_readers == {READING: 2}
    assert len(server.bodies) == 4 + result.disturbed.streams + 10 + 2


@virtual
async def test_a_slow_client_reads_at_its_rate() -> None:
    async with running(FakeServer(lambda _: [Step(0.0, tone(0.1))])) as server:
        (record,), _ = await sent(Target(server.url, bytes_per_s=1000), [0.0])
    assert record.error is None
    assert record.received_bytes == len(tone(0.1)) == 4800
    assert all(after - before == pytest.approx(size / 1000) for (before, size), (after, _) in pairwise(record.chunks))
    assert record.end_s == pytest.approx(4.8)


@virtual
async def test_a_slow_client_holds_up_the_server() -> None:
    async with running(FakeServer(lambda _: [Step(0.0, tone(20.0))])) as server:
        (record,), _ = await sent(Target(server.url, bytes_per_s=1000, timeout_s=3.0), [0.0])
        assert server.sent == {"0": []}, "the server has not written everything"
    assert record.error == "timeout"
    assert record.received_bytes <= 4000
