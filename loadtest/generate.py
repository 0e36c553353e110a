"""The load generator: sends requests at their times from several processes, and measures its own lateness."""

import asyncio
import multiprocessing
import queue
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import psutil

from loadtest.client import Client, Target, connected
from loadtest.record import Record
from loadtest.scenarios import Request

_TICK_S = 0.01


@dataclass(frozen=True)
class Planned:
    """A request and its time. scheduled_s: None in a closed loop, where a user sends it when the last one has ended."""

    index: int
    request: Request
    scheduled_s: float | None
    keep: bool = False


@dataclass(frozen=True)
class Effort:
    """The effort of one process. lags_ms: how late its event loop woke up at each tick; cpu_share: of one core.

    began: the epoch second from which the times of its records count.
    """

    began: float
    lags_ms: list[float]
    cpu_share: float


@dataclass(frozen=True)
class Generated:
    """The outcome of a load.

    stopped: whether the caller ended it early; requests under way at that moment have no record.
    stolen_share: the share of this machine's processor time that other guests of its host used.
    """

    records: list[Record]
    efforts: list[Effort]
    stopped: bool
    stolen_share: float


def generate(
    target: Target,
    planned: Sequence[Planned],
    *,
    processes: int = 1,
    users: int | None = None,
    enough: Callable[[Record], bool] = lambda _: False,
    start_at: float | None = None,
) -> Generated:
    """Send all planned requests, divided among `processes`.

    users: makes it a closed loop, in which each user sends the next request of its process when its last one has ended.
    enough: receives every record; the load stops when it returns true. start_at: the epoch second of the start; None
    starts when all processes are ready. Raises RuntimeError if a process dies.
    """
    processes = processes if users is None else min(processes, users)  # a process without a user would never send
    context = multiprocessing.get_context("spawn")
    results: Queue[Record | Effort] = context.Queue()
    stop, together = context.Event(), context.Barrier(processes)
    workers = [
        context.Process(
            target=_work,
            args=(_Share(target, planned[share::processes], its_users, start_at), together, results, stop),
            daemon=True,
        )
        for share, its_users in enumerate(_divided(users, processes))
    ]
    before = psutil.cpu_times()
    for worker in workers:
        worker.start()
    try:
        records, efforts, stopped = _collected(results, workers, stop, enough)
    finally:
        stop.set()
        for worker in workers:
            worker.join(10)
            worker.kill()
    in_order = sorted(records, key=lambda record: record.index)
    assert len({record.index for record in records}) == len(records), "a request has two records"
    assert stopped or len(records) == len(planned), f"{len(planned) - len(records)} requests have no record"
    return Generated(in_order, efforts, len(records) < len(planned), _stolen_share(before, psutil.cpu_times()))


def _stolen_share(before: Any, after: Any) -> float:  # noqa: ANN401  # psutil's tuples, with `steal` on Linux only
    if not hasattr(before, "steal"):
        return 0.0
    # The fields after the eighth are the time of guests, which `user` and `nice` already contain.
    seconds = sum(after[:8]) - sum(before[:8])
    return float((after.steal - before.steal) / seconds) if seconds else 0.0


def _collected(
    results: "Queue[Record | Effort]",
    workers: Sequence[multiprocessing.process.BaseProcess],
    stop: Event,
    enough: Callable[[Record], bool],
) -> tuple[list[Record], list[Effort], bool]:
    """Return all records and the effort of every worker, and whether `enough` stopped the load."""
    records, efforts, stopped = list[Record](), list[Effort](), False
    while len(efforts) < len(workers):
        match _next(results, workers):
            case Record() as record:
                records.append(record)
                if not stopped and enough(record):
                    stopped = True
                    stop.set()
            case Effort() as effort:
                efforts.append(effort)
    return records, efforts, stopped


def _next(results: "Queue[Record | Effort]", workers: Sequence[multiprocessing.process.BaseProcess]) -> Record | Effort:
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a process that sent requests died; its messages are above") from None


@dataclass(frozen=True)
class _Share:
    """The work of one process."""

    target: Target
    planned: Sequence[Planned]
    users: int | None
    start_at: float | None


def _divided(users: int | None, processes: int) -> list[int | None]:
    """Return the number of users of each process; None for every process of an open loop."""
    if users is None:
        return [None] * processes
    divided: list[int | None] = [len(range(share, users, processes)) for share in range(processes)]
    assert all(divided), f"of {processes} processes, one has none of {users} users: its requests would never be sent"
    return divided


def _work(share: _Share, together: Barrier, results: "Queue[Record | Effort]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and sets the stop event
    together.wait()
    asyncio.run(_send_until(share, results, stop))


async def _send_until(share: _Share, results: "Queue[Record | Effort]", stop: Event) -> None:
    origin = time.perf_counter() + (0.0 if share.start_at is None else share.start_at - time.time())
    began = time.time() + origin - time.perf_counter()
    await asyncio.sleep(origin - time.perf_counter())
    cpu = time.process_time()
    sending = asyncio.create_task(send(share.target, share.planned, origin, results.put, users=share.users))
    lags = await watch(sending, stop.is_set)
    sending.cancel()
    failed = (await asyncio.gather(sending, return_exceptions=True))[0]
    if isinstance(failed, Exception):
        raise failed
    results.put(Effort(began, lags, (time.process_time() - cpu) / (time.perf_counter() - origin)))


async def watch(work: "asyncio.Task[None]", stopped: Callable[[], bool]) -> list[float]:
    """Wait until `work` is done or `stopped` returns true; return how late the event loop woke up at each tick, ms."""
    lags = []
    while not work.done() and not stopped():
        before = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        lags.append(1000 * (time.perf_counter() - before - _TICK_S))
    return lags


async def send(
    target: Target,
    planned: Sequence[Planned],
    origin: float,
    put: Callable[[Record], None],
    *,
    users: int | None = None,
) -> None:
    """Send the requests of this process: in an open loop, or with `users` in a closed one. Times are from `origin`."""
    async with connected(target) as http:
        client = Client(http, target, origin)
        async with asyncio.TaskGroup() as group:
            if users is None:
                await open_loop(client, planned, group, put)
            else:
                waiting = iter(planned)
                for _ in range(users):
                    group.create_task(_user(client, waiting, put))


async def open_loop(
    client: Client, planned: Sequence[Planned], group: asyncio.TaskGroup, put: Callable[[Record], None]
) -> None:
    """Send each request at its time, as a task of `group`. `put` receives every record within its task."""
    for plan in planned:
        assert plan.scheduled_s is not None, "a request of an open loop has no scheduled time"
        await asyncio.sleep(plan.scheduled_s - client.now())
        group.create_task(_one(client, plan, put))


async def _user(client: Client, waiting: Iterator[Planned], put: Callable[[Record], None]) -> None:
    for plan in waiting:
        await _one(client, plan, put)


async def _one(client: Client, plan: Planned, put: Callable[[Record], None]) -> None:
    put(await client.perform(plan.index, plan.request, plan.scheduled_s, keep=plan.keep))
