"""The callers whose streams are measured: a closed loop with a pause after each failure."""

import asyncio
from collections.abc import Callable, Iterator

from loadtest.client import Client
from loadtest.record import Record
from loadtest.scenarios import Request

_PAUSE_S = 1.0


def pause_s(failed: Record) -> float:
    """Return how long a caller waits after a failure: as long as the server asks for, otherwise a second.

    Without the pause, callers would send thousands of requests while no replica is there.
    """
    asked = None if failed.refusal is None else failed.refusal.retry_after_s
    return _PAUSE_S if asked is None else asked


async def speak(
    client: Client, waiting: Iterator[tuple[int, Request]], streams: int, put: Callable[[Record], None]
) -> None:
    """Perform all requests of `waiting`, `streams` at a time. `put` receives every record, with its samples."""

    async def caller() -> None:
        for index, request in waiting:
            record = await client.perform(index, request, None, keep=True)
            put(record)
            if record.error is not None:
                await asyncio.sleep(pause_s(record))

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(caller())
