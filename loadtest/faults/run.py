"""A run under faults: the same streams twice on the undisturbed service, then for a set time while faults happen."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import click
from tqdm import tqdm

from loadtest.bench import Bench
from loadtest.client import Client, connected
from loadtest.faults.callers import speak
from loadtest.faults.disturbances import leave, leavers, read_slowly
from loadtest.faults.hands import FaultFailed, Hand
from loadtest.faults.outcomes import counted, judged
from loadtest.faults.result import FaultResult, Struck
from loadtest.faults.schedule import Fault
from loadtest.generate import watch
from loadtest.record import Record
from loadtest.result import conditions_of
from loadtest.scenarios import Request
from loadtest.summary import distribution


@dataclass(frozen=True)
class Disturbances:
    """All that happens to the service within `for_s` seconds, with the hand that brings about the faults.

    leavers: the number of clients that leave at random moments. slow_readers: the number of clients that always read,
    each `slow_bytes_per_s`.
    """

    hand: Hand
    faults: Sequence[Fault]
    for_s: float
    leavers: int
    slow_readers: int
    slow_bytes_per_s: int


@dataclass(frozen=True)
class _Disturbed:
    records: list[Record]
    struck: list[Struck]
    left: Counter[str]
    slow: Counter[str]
    lags_ms: list[float]


async def run(
    bench: Bench, requests: Sequence[Request], disturbances: Disturbances, tolerance_steps: int
) -> FaultResult:
    """Speak the requests undisturbed, then under faults. Raises click.ClickException if they fail undisturbed."""
    conditions = conditions_of(bench, f"{bench.scenario} under faults", None)
    with tqdm(unit="stream", desc="undisturbed") as bar:

        def seen(_: Record) -> None:
            bar.update()

        first = await _undisturbed(bench, requests, seen)
        again = await _undisturbed(bench, requests, seen)
        bar.set_description("under faults")
        expected = [record.pcm for record in first]
        durations_s = [record.end_s - record.sent_s for record in first]
        disturbed = await _disturbed(bench, requests, durations_s, disturbances, seen)

    undisturbed, streams = (
        [judged(record, which := record.index % len(requests), expected[which], tolerance_steps) for record in records]
        for records in (again, disturbed.records)
    )
    return FaultResult(
        conditions=conditions,
        tolerance_steps=tolerance_steps,
        for_s=disturbances.for_s,
        undisturbed=counted(undisturbed),
        disturbed=counted(streams),
        faults=disturbed.struck,
        leavers=dict(disturbed.left),
        slow_readers=dict(disturbed.slow),
        lag_ms=distribution(disturbed.lags_ms),
        allowed_lag_ms=bench.allowed_ms,
        streams=streams,
    )


async def _undisturbed(bench: Bench, requests: Sequence[Request], seen: Callable[[Record], None]) -> list[Record]:
    """Return the records of all requests, in their order. Raises click.ClickException if one of them failed."""
    records = list[Record]()

    def put(record: Record) -> None:
        records.append(record)
        seen(record)

    async with connected(bench.target) as http:
        await speak(Client(http, bench.target, time.perf_counter()), iter(enumerate(requests)), _streams(bench), put)
    failed = Counter(record.error for record in records if record.error is not None)
    if failed:
        said = ", ".join(f"{kind}: {count}" for kind, count in failed.items())
        raise click.ClickException(f"{failed.total()} of {len(records)} streams failed before any fault ({said})")
    return sorted(records, key=lambda record: record.index)


async def _disturbed(
    bench: Bench,
    requests: Sequence[Request],
    durations_s: Sequence[float],
    disturbances: Disturbances,
    seen: Callable[[Record], None],
) -> _Disturbed:
    records = list[Record]()

    def put(record: Record) -> None:
        records.append(record)
        seen(record)

    for_s, origin = disturbances.for_s, time.perf_counter()
    slowly = replace(bench.target, bytes_per_s=disturbances.slow_bytes_per_s, timeout_s=for_s + bench.target.timeout_s)
    leaving = leavers(requests, durations_s, disturbances.leavers, for_s, bench.seed)
    async with connected(bench.target) as http, connected(slowly) as slow_http, asyncio.TaskGroup() as group:
        client = Client(http, bench.target, origin)
        slow = read_slowly(Client(slow_http, slowly, origin), requests, disturbances.slow_readers, for_s)
        struck = group.create_task(_strike_all(disturbances.hand, disturbances.faults, client.now))
        left, read = group.create_task(leave(client, leaving)), group.create_task(slow)
        speaking = group.create_task(speak(client, _repeated(requests, client.now, for_s), _streams(bench), put))
        lags_ms = await watch(speaking, lambda: False)
    in_order = sorted(records, key=lambda record: record.index)
    assert [record.index for record in in_order] == list(range(len(in_order))), "a stream has no record, or two"
    return _Disturbed(in_order, struck.result(), left.result(), read.result(), lags_ms)


def _repeated(requests: Sequence[Request], now: Callable[[], float], until_s: float) -> Iterator[tuple[int, Request]]:
    """Yield the requests in turn, with their running number, until `until_s`."""
    for index in itertools.count():
        if now() >= until_s:
            return
        yield index, requests[index % len(requests)]


async def _strike_all(hand: Hand, faults: Sequence[Fault], now: Callable[[], float]) -> list[Struck]:
    async def strike(fault: Fault) -> Struck:
        await asyncio.sleep(fault.at_s - now())
        at, happened = now(), True
        try:
            what = await hand.strike(fault)
        except FaultFailed as failure:
            what, happened = str(failure), False
        return Struck(at_s=at, kind=fault.kind, action=fault.action, happened=happened, what=what)

    return await asyncio.gather(*map(strike, faults))


def _streams(bench: Bench) -> int:
    assert bench.users is not None, "streams under faults are a closed loop"
    return bench.users
