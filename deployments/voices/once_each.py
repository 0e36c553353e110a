"""Results that are expensive and needed again: computed once, also for callers at the same time."""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class OnceEach(Generic[Key, Result]):
    """The `limit` results used last, by key. A caller waits for the work if another caller has begun it.

    The work goes on when a caller leaves. Work that fails is forgotten.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: OrderedDict[Key, asyncio.Task[Result]] = OrderedDict()

    async def get(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of `key`. `work` computes a missing result; its error is raised in all waiting callers."""
        task = self._tasks.get(key)
        if task is None:
            # A new context: Serve finds the calls of a request by its context, and cancels them with the request.
            task = self._tasks[key] = asyncio.create_task(work(), context=contextvars.Context())
            task.add_done_callback(lambda done: self._forget_failure(key, done))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._limit:
            self._tasks.popitem(last=False)  # a caller that waits for it holds it
        return await asyncio.shield(task)

    def _forget_failure(self, key: Key, task: "asyncio.Task[Result]") -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]
