"""Work-conserving batching: whatever has arrived when the worker becomes free is the next batch.

(`serve.batch` closes batches on a timer while the previous one still runs, so under load its batches stay small.)
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


# So many batches go before an item at most.
_MOST_PASSED = 3


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"
    passed: int = 0  # batches that went before it


class Batcher(Generic[Item, Result]):
    """Runs `run(items) -> results` on `executor`, one batch at a time, with up to `max_batch` items of those waiting.

    With `size`, a batch is of items of one size, the smallest first: they are soon done, and are waited for most. A
    batch that raises fails its own items with that exception and no others.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        max_batch: int,
        size: Callable[[Item], int] = lambda item: 0,
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._size = size
        self._waiting: list[_Entry[Item, Result]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result for `item`. Cancelling takes it out of the queue; a batch under way is finished without it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            try:
                results = await loop.run_in_executor(self._executor, self._run, [entry.item for entry in batch])
            except Exception as error:  # the submitters' to handle
                for entry in batch:
                    if not entry.future.done():
                        entry.future.set_exception(error)
                continue
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        live = [entry for entry in self._waiting if not entry.future.done()]
        if not live:
            self._waiting = []
            return []
        impatient = (entry for entry in live if entry.passed >= _MOST_PASSED)
        first = next(impatient, None) or min(live, key=lambda entry: self._size(entry.item))
        alike = [entry for entry in live if self._size(entry.item) == self._size(first.item)]
        batch = alike[: self._max_batch]
        self._waiting = [entry for entry in live if entry not in batch]
        for entry in self._waiting:
            entry.passed += 1
        return batch
