"""Results that cost much and are asked for again: worked out once, also when many ask at the same time."""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class OnceEach(Generic[Key, Result]):
    """The `limit` results used last, by key. Who asks while one is being worked out waits for that same work.

    A caller that goes away leaves it to the others; work that fails is forgotten.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: OrderedDict[Key, asyncio.Task[Result]] = OrderedDict()

    async def get(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Raises what `work` raises, to everybody who waits for it."""
        task = self._tasks.get(key)
        if task is None:
            # In a context of its own: Serve finds the calls of a request by its context, and cancels them with it.
            task = self._tasks[key] = asyncio.create_task(work(), context=contextvars.Context())
            task.add_done_callback(lambda done: self._forget_failure(key, done))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._limit:
            self._tasks.popitem(last=False)  # who waits for it holds it
        return await asyncio.shield(task)

    def _forget_failure(self, key: Key, task: "asyncio.Task[Result]") -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]
