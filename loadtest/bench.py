"""One load on one server: its options, its plan, sending it and the summary."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace

import aiohttp
import click
import numpy as np
from tqdm import tqdm

from loadtest.arrivals import Load, offsets_s
from loadtest.client import Target, connected
from loadtest.generate import Generated, Planned, generate
from loadtest.knee import Judge, Promise, Trial
from loadtest.record import Record
from loadtest.scenarios import Maker, Request, RequestOptions, Scenario, ServerRefused, staged
from loadtest.summary import Run, summarise


@dataclass(frozen=True)
class Bench:
    """The definition of a load.

    requests: the number of requests of all shards together. users: of a closed loop; None in an open loop.
    allowed_ms: how late the generator itself may be at p99. shard: (i, n) sends every n-th request, from the i-th on.
    start_at: the epoch second of the start, or None for at once. keep: of how many requests the audio is kept.
    """

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
    """Prepare the server for the scenario, and yield what makes its requests. Raises click.ClickException."""
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
    """Return the requests of this shard. The same seed gives the same requests and arrival times in every shard."""
    rng = np.random.default_rng([seed, 1])
    requests = [make(rng) for _ in range(bench.requests)]
    moments: list[float] | list[None] = [None] * bench.requests
    if bench.load != "closed":
        assert rate is not None, "an open loop needs a rate"
        moments = offsets_s(bench.load, rate, bench.requests, seed)
    every = max(bench.requests // bench.keep, 1) if bench.keep else bench.requests + 1
    planned = [
        Planned(index, request, moment, keep=(index + 1) % every == 0)
        for index, (request, moment) in enumerate(zip(requests, moments, strict=True))
    ]
    share, shares = bench.shard
    assert 0 <= share < shares, f"shard {share} of {shares} would send nothing, or what another shard sends"
    return planned[share::shares]


def repeatable(bench: Bench, requests: Sequence[Request]) -> list[Request]:
    """Return the requests, each with a seed of its own, so that it has the same answer whenever it is sent.

    Raises click.ClickException.
    """
    if any(request.live or request.before for request in requests):
        raise click.ClickException(
            f"--scenario {bench.scenario} does not send the same bytes twice; use one with a single HTTP request, such "
            "as custom_voice"
        )
    rng = np.random.default_rng([bench.seed, 4])
    return [replace(one, fields={"seed": int(rng.integers(2**31)), **one.fields}) for one in requests]


def numbered(request: Request, index: int) -> Request:
    """Return the request with a text of its own, which begins with the number `index`.

    Servers may recognise a request that comes back by its text, and the load test knows only a few texts.
    """
    return replace(request, text=replace(request.text, words=f"{index}: {request.text.words}"))


def measure(
    bench: Bench,
    make: Maker,
    rate: float | None,
    *,
    seed: int,
    description: str = "",
    enough: Callable[[Record], bool] = lambda _: False,
) -> Generated:
    """Send all requests of this shard, with a progress bar.

    enough: receives every record; the run stops when it returns true. Raises click.ClickException.
    """
    assert (bench.users is not None) == (bench.load == "closed"), f"a {bench.load} load with users {bench.users}"
    return send_planned(bench, plan(bench, make, rate, seed), description, enough)


def send_planned(
    bench: Bench, planned: Sequence[Planned], description: str, enough: Callable[[Record], bool] = lambda _: False
) -> Generated:
    """Like `measure`, with requests that are planned already. Raises click.ClickException."""
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
    """Return the summary of what was generated, with the check of the generator itself."""
    lags = [lag for effort in generated.efforts for lag in effort.lags_ms]
    busiest = max(effort.cpu_share for effort in generated.efforts)
    return summarise(generated.records, lags, busiest, bench.allowed_ms, generated.stolen_share)


def try_rate(bench: Bench, make: Maker, promise: Promise, rate: float, attempt: int) -> Trial:
    """Run one trial of the search for a knee. Another `attempt` has other arrival times."""
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
    """Return the message for a run whose generator did not keep up, so that it tells nothing about the server."""
    check = run.self_check
    return (
        f"the generator was the bottleneck: at p99 it sent {check.late_ms.get('p99')} ms late and its event loop woke "
        f"up {check.lag_ms.get('p99')} ms late ({check.allowed_ms:g} allowed), with {check.cpu_share:.0%} of a core in "
        f"its busiest process. Use more --processes, or other machines (--shard)"
    )
