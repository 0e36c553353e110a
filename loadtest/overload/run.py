"""A run above capacity: a few plain requests, the overload with its second tries, and the same plain requests again."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import click
from tqdm import tqdm

from loadtest.bench import Bench, numbered, plan, repeatable
from loadtest.client import Client, Target, connected
from loadtest.generate import Planned, open_loop, watch
from loadtest.memory import compared, processes_of, resident_mib
from loadtest.overload.result import OverloadResult, Plain
from loadtest.record import Record
from loadtest.result import conditions_of
from loadtest.scenarios import Maker, Request
from loadtest.summary import distribution
from loadtest.tries import again_at_s, counted, judged

# The requests that show the full speed.
_PLAIN = 5


@dataclass(frozen=True)
class Aftermath:
    """What follows the arrivals: second tries for a bounded time, a pause, then plain requests."""

    second_try_within_s: float
    recovery_after_s: float


@dataclass(frozen=True)
class _Overloaded:
    firsts: list[Record]
    seconds: list[Record]
    untried: int
    lags_ms: list[float]


def arrivals(bench: Bench, make: Maker, rate: float) -> list[Planned]:
    """Return the requests with their arrival times, each with a seed and a text of its own.

    Raises click.ClickException.
    """
    planned = plan(bench, make, rate, bench.seed)
    requests = repeatable(bench, [one.request for one in planned])
    return [replace(one, request=numbered(request, one.index)) for one, request in zip(planned, requests, strict=True)]


async def run(bench: Bench, planned: Sequence[Planned], rate: float, aftermath: Aftermath) -> OverloadResult:
    """Send the plain requests, the overload, and the plain requests again.

    Raises click.ClickException if plain requests fail before the overload.
    """
    conditions = conditions_of(bench, f"{bench.scenario} above capacity", rate)
    plain = [one.request for one in planned[:_PLAIN]]
    await _one_by_one(bench.target, plain)  # not measured: first-time initialisation
    before = await _one_by_one(bench.target, plain)
    failed = Counter(record.error for record in before if record.error is not None)
    if failed:
        said = ", ".join(f"{kind}: {count}" for kind, count in failed.items())
        raise click.ClickException(f"{failed.total()} of {len(plain)} requests failed before the overload ({said})")
    begin_mib = resident_mib(processes_of(bench.target.url))
    overloaded = await _overload(bench.target, planned, aftermath.second_try_within_s)
    await asyncio.sleep(aftermath.recovery_after_s)
    after = await _one_by_one(bench.target, plain)
    end_mib = resident_mib(processes_of(bench.target.url))

    firsts = [judged(record, second=False) for record in overloaded.firsts]
    seconds = [judged(record, second=True) for record in overloaded.seconds]
    arrivals_end_s = _end_s(planned)
    sent = [*overloaded.firsts, *overloaded.seconds]
    return OverloadResult(
        conditions=conditions,
        arrivals_end_s=arrivals_end_s,
        second_try_within_s=aftermath.second_try_within_s,
        recovery_after_s=aftermath.recovery_after_s,
        first=counted(firsts),
        second_during=counted([one for one in seconds if one.due_s <= arrivals_end_s]),
        second_after=counted([one for one in seconds if one.due_s > arrivals_end_s]),
        untried=overloaded.untried,
        plain=[_compared(*pair) for pair in zip(before, after, strict=True)],
        memory=compared(begin_mib, end_mib),
        late_ms=distribution(record.late_ms for record in sent),
        lag_ms=distribution(overloaded.lags_ms),
        allowed_lag_ms=bench.allowed_ms,
        tries=[*firsts, *seconds],
    )


async def _one_by_one(target: Target, requests: Sequence[Request]) -> list[Record]:
    async with connected(target) as http:
        client = Client(http, target, time.perf_counter())
        return [await client.perform(index, request, None) for index, request in enumerate(requests)]


def _compared(before: Record, after: Record) -> Plain:
    whole = after.error is None
    return Plain(
        first_audio_before_ms=before.ttfa_ms,
        first_audio_after_ms=after.ttfa_ms if whole else None,
        total_before_ms=before.total_ms,
        total_after_ms=after.total_ms if whole else None,
        error=after.error,
    )


async def _overload(target: Target, planned: Sequence[Planned], second_try_within_s: float) -> _Overloaded:
    """Send all requests at their times, and each refused one once more at the time that its refusal said."""
    firsts, seconds, untried = list[Record](), list[Record](), list[int]()
    until_s = _end_s(planned) + second_try_within_s

    with tqdm(unit="try", desc="overload") as bar:
        async with connected(target) as http, asyncio.TaskGroup() as group:
            client = Client(http, target, time.perf_counter())

            async def again(index: int, due_s: float) -> None:
                await asyncio.sleep(due_s - client.now())
                seconds.append(await client.perform(index, planned[index].request, due_s))
                bar.update()

            async def all_tries() -> None:
                async with asyncio.TaskGroup() as tries:

                    def put(record: Record) -> None:
                        firsts.append(record)
                        bar.update()
                        due_s = again_at_s(record)
                        if due_s is not None and due_s <= until_s:
                            tries.create_task(again(record.index, due_s))
                        elif due_s is not None:
                            untried.append(record.index)

                    await open_loop(client, planned, tries, put)

            lags_ms = await watch(group.create_task(all_tries()), lambda: False)
    firsts.sort(key=lambda record: record.index)
    assert [record.index for record in firsts] == list(range(len(planned))), "a request has no first try, or two"
    told = sorted(record.index for record in firsts if again_at_s(record) is not None)
    assert sorted([*untried, *(record.index for record in seconds)]) == told, "a refused request was not tried twice"
    return _Overloaded(firsts, seconds, len(untried), lags_ms)


def _end_s(planned: Sequence[Planned]) -> float:
    end_s = planned[-1].scheduled_s
    assert end_s is not None, "a request of an open loop has no scheduled time"
    return end_s
