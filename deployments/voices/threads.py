"""Blocking storage, kept from blocking anything else."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deployments.errors import Unavailable

Args = ParamSpec("Args")
Result = TypeVar("Result")

_THREADS = 32


class StorageThreads:
    """Threads of their own and a time limit: storage that hangs costs its own callers a 503, nobody else anything."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")

    async def run(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """`work(*args, **kwargs)`, and what it raises. Raises Unavailable when it takes too long; it goes on then."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(work, *args, **kwargs))
        try:
            return await asyncio.wait_for(running, self._timeout_s)
        except TimeoutError:
            message = f"the voice storage has not answered within {self._timeout_s:g} s"
            raise Unavailable(message, "storage_timeout", self._timeout_s) from None
