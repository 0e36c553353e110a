"""Clients that disturb: some leave in the middle of a stream, others read slowly. They are counted, not measured."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.client import Client
from loadtest.faults.callers import pause_s
from loadtest.scenarios import Request

LEFT = "left"
WHOLE = "received everything"
READING = "still reading at the end"


@dataclass(frozen=True)
class Leaver:
    """A client that sends `request` at the moment `at_s` and closes its connection `after_s` later."""

    at_s: float
    request: Request
    after_s: float


def leavers(
    requests: Sequence[Request], durations_s: Sequence[float], count: int, for_s: float, seed: int
) -> list[Leaver]:
    """Return `count` leavers with random moments. durations_s: how long each request takes if nobody leaves."""
    rng = np.random.default_rng([seed, 3])
    found = []
    for _ in range(count):
        which = int(rng.integers(len(requests)))
        at, after = rng.uniform(0, for_s), rng.uniform(0, durations_s[which])
        found.append(Leaver(float(at), requests[which], float(after)))
    return found


async def leave(client: Client, planned: Sequence[Leaver]) -> Counter[str]:
    """Let all leavers come and leave, and return how many of them did what."""
    seen = Counter[str]()

    async def one(number: int, leaver: Leaver) -> None:
        await asyncio.sleep(leaver.at_s - client.now())
        try:
            async with asyncio.timeout(leaver.after_s):
                record = await client.perform(number, leaver.request, None)
        except TimeoutError:
            seen[LEFT] += 1
        else:
            seen[record.error or WHOLE] += 1

    async with asyncio.TaskGroup() as group:
        for number, leaver in enumerate(planned):
            group.create_task(one(number, leaver))
    assert seen.total() == len(planned), "a leaver was not counted, or counted twice"
    return seen


async def read_slowly(client: Client, requests: Sequence[Request], readers: int, until_s: float) -> Counter[str]:
    """Let `readers` clients of a slow target read one stream after the other, and return how their streams ended."""
    seen = Counter[str]()

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(max(until_s - client.now(), 0)):
                while True:
                    record = await client.perform(number, requests[number % len(requests)], None)
                    seen[record.error or WHOLE] += 1
                    if record.error is not None:
                        await asyncio.sleep(pause_s(record))
        except TimeoutError:
            seen[READING] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(readers):
            group.create_task(one(number))
    assert seen[READING] == readers, "a slow reader ended before the run"
    return seen
