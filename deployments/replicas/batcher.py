"""Work-conserving batching: the items that have arrived when the worker becomes free are the next batch.

`serve.batch` closes batches on a timer while the previous batch still runs, so its batches stay small under load.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from deployments.replicas.health import Health
from qwen_tts.errors import EngineStopped

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs `run(items) -> results` on `executor`, one batch at a time.

    `choose` receives the waiting items in order of arrival and returns the indices of the next batch, at least one. A
    batch that raises is run again in halves, until the items at fault are alone. `health` judges these. It tries
    `probe`, a computation that does not depend on any item. `run` must have no effect if it raises.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        choose: Callable[[Sequence[Item]], Sequence[int]],
        health: Health,
        probe: Callable[[], None],
    ) -> None:
        self._run = run
        self._executor = executor
        self._choose = choose
        self._health = health
        self._probe = probe
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Return the result for `item`. Raises InvalidRequest, RequestFailed or EngineStopped.

        A cancelled item leaves the queue. A batch that already runs is finished without it.
        """
        self._health.check()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while live := [entry for entry in self._waiting if not entry[1].done()]:
            self._waiting = live
            try:
                self._health.check()
                chosen = set(self._choose([item for item, _ in live]))
                assert chosen, f"none of {len(live)} waiting items was chosen: they would wait for ever"
                assert chosen <= set(range(len(live))), f"{sorted(chosen)} chosen of {len(live)} waiting items"
            except Exception as error:  # the callers of submit handle it
                self._health.failed(error)
                self._waiting = []
                _fail(live, error)
                continue
            self._waiting = [entry for index, entry in enumerate(live) if index not in chosen]
            await self._compute([live[index] for index in sorted(chosen)])

    async def _compute(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        """Give every item of `batch` its result or its own error."""
        batch = [entry for entry in batch if not entry[1].done()]
        if not batch:
            return
        if not self._health.ok:
            _fail(batch, EngineStopped("a replica can no longer be relied on"))
            return
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._run, [item for item, _ in batch])
            assert len(results) == len(batch), f"{len(results)} results for a batch of {len(batch)}"
        except Exception as error:  # the parts tell whose fault it is
            if len(batch) == 1:
                judged = loop.run_in_executor(self._executor, self._health.judge, error, self._probe)
                _fail(batch, await judged)
            else:
                half = len(batch) // 2
                await self._compute(batch[:half])
                await self._compute(batch[half:])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _fail(batch: list[tuple[Item, "asyncio.Future[Result]"]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def first_come(most: int) -> Callable[[Sequence[object]], Sequence[int]]:
    """Return a choice of up to `most` items, in order of arrival."""
    return lambda waiting: range(min(most, len(waiting)))
