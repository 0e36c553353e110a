"""One load on one server: everything that is chosen, planned, sent and summed up."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import aiohttp
import click
import numpy as np
from tqdm import tqdm

from loadtest.arrivals import Load, offsets_s
from loadtest.client import Target, connected
from loadtest.generate import Generated, Planned, generate
from loadtest.knee import Judge, Promise, Trial
from loadtest.record import Record
from loadtest.scenarios import Maker, RequestOptions, Scenario, ServerRefused, staged
from loadtest.summary import Run, summarise


@dataclass(frozen=True)
class Bench:
    """`requests` of all shards together; `shard` (i, n) sends every n-th from the i-th on. `users` is for a closed
    loop, and None otherwise. Of `keep` requests the audio is kept. The generator itself may be `allowed_ms` late."""

    target: Target
    options: RequestOptions
    scenario: Scenario
    load: Load
    requests: int
    users: int | None
    seed: int
    processes: int
    allowed_ms: float
    shard: tuple[int, int] = (0, 1)
    start_at: float | None = None
    keep: int = 0


@contextmanager
def requests_for(bench: Bench) -> Iterator[Maker]:
    """The server is ready for the scenario's orders. Raises click.ClickException."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def stage() -> Maker:
            http = await stack.enter_async_context(connected(bench.target))
            return await stack.enter_async_context(staged(http, bench.scenario, bench.options))

        try:
            make = runner.run(stage())
        except (ServerRefused, aiohttp.ClientError, TimeoutError) as error:
            runner.run(stack.aclose())
            raise click.ClickException(f"{bench.target.url}: {error}") from None
        try:
            yield make
        finally:
            runner.run(stack.aclose())


def plan(bench: Bench, make: Maker, rate: float | None, seed: int) -> list[Planned]:
    """What this shard sends. The same seed asks for the same, at the same moments, in every shard."""
    rng = np.random.default_rng([seed, 1])
    requests = [make(rng) for _ in range(bench.requests)]
    moments: list[float] | list[None] = [None] * bench.requests
    if bench.load != "closed":
        assert rate is not None, "an open loop has a rate"
        moments = offsets_s(bench.load, rate, bench.requests, seed)
    every = max(bench.requests // bench.keep, 1) if bench.keep else bench.requests + 1
    planned = [
        Planned(index, request, moment, keep=(index + 1) % every == 0)
        for index, (request, moment) in enumerate(zip(requests, moments, strict=True))
    ]
    share, shares = bench.shard
    return planned[share::shares]


def measure(
    bench: Bench,
    make: Maker,
    rate: float | None,
    *,
    seed: int,
    description: str = "",
    enough: Callable[[Record], bool] = lambda _: False,
) -> Generated:
    """Send it all, with a progress bar. `enough` may end it early. Raises click.ClickException."""
    planned = plan(bench, make, rate, seed)
    with tqdm(total=len(planned), unit="request", desc=description) as bar:

        def seen(record: Record) -> bool:
            bar.update()
            return enough(record)

        try:
            return generate(
                bench.target, planned, processes=bench.processes, users=bench.users, enough=seen,
                start_at=bench.start_at,
            )  # fmt: skip
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None


def summed_up(bench: Bench, generated: Generated) -> Run:
    lags = [lag for effort in generated.efforts for lag in effort.lags_ms]
    busiest = max(effort.cpu_share for effort in generated.efforts)
    return summarise(generated.records, lags, busiest, bench.allowed_ms, generated.stolen_share)


def try_rate(bench: Bench, make: Maker, promise: Promise, rate: float, attempt: int) -> Trial:
    """One trial for a knee."""
    judge = Judge(promise, bench.requests)
    generated = measure(
        bench, make, rate, seed=bench.seed + attempt, description=f"{rate:.3g} a second", enough=judge.see
    )
    run = summed_up(bench, generated)
    return Trial(
        rate=rate,
        requests=bench.requests,
        kept=run.self_check.valid and not judge.broken,
        stopped=generated.stopped,
        late=judge.late,
        spoiled=judge.spoiled,
        run=run,
    )


def invalid(run: Run) -> str:
    """Why a run says nothing of the server."""
    check = run.self_check
    return (
        f"the generator was the bottleneck: at p99 it sent {check.late_ms.get('p99')} ms late and its event loop woke "
        f"up {check.lag_ms.get('p99')} ms late ({check.allowed_ms:g} allowed), with {check.cpu_share:.0%} of a core in "
        f"its busiest process. Use more --processes, or other machines (--shard)"
    )
