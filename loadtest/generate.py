"""Many requests at their times, from several processes, and a check of whether these processes kept up."""

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
    """`scheduled_s` None: when a user of a closed loop comes to it."""

    index: int
    request: Request
    scheduled_s: float | None
    keep: bool = False


@dataclass(frozen=True)
class Effort:
    """Of one process: how late its event loop woke up from each tick, ms, and its share of a core."""

    lags_ms: list[float]
    cpu_share: float


@dataclass(frozen=True)
class Generated:
    """`stopped` is true if the caller had seen enough; what was under way then is not recorded. `stolen_share` of this
    machine's processor time went to other guests of its host."""

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
    """Send everything that is planned, divided among `processes`. With `users` a closed loop, in which each sends the
    next of its process's when the last has ended. `enough` is shown every record and says whether to stop. All begin
    when all are ready, or at the epoch second `start_at`. Raises RuntimeError if a process dies."""
    processes = processes if users is None else min(processes, users)  # none without a user to send its share
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
    records, efforts = list[Record](), list[Effort]()
    try:
        while len(efforts) < processes:
            match _next(results, workers):
                case Record() as record:
                    records.append(record)
                    if not stop.is_set() and enough(record):
                        stop.set()
                case Effort() as effort:
                    efforts.append(effort)
    finally:
        stop.set()
        for worker in workers:
            worker.join(10)
            worker.kill()
    in_order = sorted(records, key=lambda record: record.index)
    return Generated(in_order, efforts, len(records) < len(planned), _stolen_share(before, psutil.cpu_times()))


def _stolen_share(before: Any, after: Any) -> float:  # noqa: ANN401  # psutil's tuples, with `steal` on Linux only
    if not hasattr(before, "steal"):
        return 0.0
    # Of a guest's time psutil says twice, under user and nice, what its own guests had.
    seconds = sum(after[:8]) - sum(before[:8])
    return float((after.steal - before.steal) / seconds) if seconds else 0.0


def _next(results: "Queue[Record | Effort]", workers: Sequence[multiprocessing.process.BaseProcess]) -> Record | Effort:
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a process that sent requests died; its messages are above") from None


@dataclass(frozen=True)
class _Share:
    """What one process does."""

    target: Target
    planned: Sequence[Planned]
    users: int | None
    start_at: float | None


def _divided(users: int | None, processes: int) -> list[int | None]:
    if users is None:
        return [None] * processes
    return [len(range(share, users, processes)) for share in range(processes)]


def _work(share: _Share, together: Barrier, results: "Queue[Record | Effort]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then says stop
    together.wait()
    asyncio.run(_send_until(share, results, stop))


async def _send_until(share: _Share, results: "Queue[Record | Effort]", stop: Event) -> None:
    origin = time.perf_counter() + (0.0 if share.start_at is None else share.start_at - time.time())
    await asyncio.sleep(origin - time.perf_counter())
    cpu = time.process_time()
    sending = asyncio.create_task(send(share.target, share.planned, origin, results.put, users=share.users))
    lags = await watch(sending, stop.is_set)
    sending.cancel()
    failed = (await asyncio.gather(sending, return_exceptions=True))[0]
    if isinstance(failed, Exception):
        raise failed
    results.put(Effort(lags, (time.process_time() - cpu) / (time.perf_counter() - origin)))


async def watch(work: "asyncio.Task[None]", stopped: Callable[[], bool]) -> list[float]:
    """Until `work` is done, or `stopped`: by how many ms the event loop woke up late from each of its ticks."""
    lags = []
    while not work.done() and not stopped():
        asked = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        lags.append(1000 * (time.perf_counter() - asked - _TICK_S))
    return lags


async def send(
    target: Target,
    planned: Sequence[Planned],
    origin: float,
    put: Callable[[Record], None],
    *,
    users: int | None = None,
) -> None:
    """Within this process: an open loop, or `users` in a closed one. Times are from `origin`."""
    async with connected(target) as http:
        client = Client(http, target, origin)
        async with asyncio.TaskGroup() as group:
            if users is None:
                await _open_loop(client, planned, group, put)
            else:
                waiting = iter(planned)
                for _ in range(users):
                    group.create_task(_user(client, waiting, put))


async def _open_loop(
    client: Client, planned: Sequence[Planned], group: asyncio.TaskGroup, put: Callable[[Record], None]
) -> None:
    for plan in planned:
        assert plan.scheduled_s is not None, "an open loop has a schedule"
        await asyncio.sleep(plan.scheduled_s - client.now())
        group.create_task(_one(client, plan, put))


async def _user(client: Client, waiting: Iterator[Planned], put: Callable[[Record], None]) -> None:
    for plan in waiting:
        await _one(client, plan, put)


async def _one(client: Client, plan: Planned, put: Callable[[Record], None]) -> None:
    put(await client.perform(plan.index, plan.request, plan.scheduled_s, keep=plan.keep))
