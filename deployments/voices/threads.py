"""Threads for calls that block on storage, so that these calls block no other work."""

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deployments.errors import Unavailable

log = logging.getLogger("ray.serve")

Args = ParamSpec("Args")
Result = TypeVar("Result")

_THREADS = 32


class StorageThreads:
    """A bounded number of threads with a time limit. If the storage hangs or fails, its callers get Unavailable.

    A call waits for a thread in its own coroutine, so that its arguments are freed when the call gives up.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._places = asyncio.Semaphore(_THREADS)
        self._running = 0

    async def run(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """Return `work(*args, **kwargs)`, or raise what it raises.

        Raises Unavailable after the time limit. A call that has begun then runs on and keeps its thread. Raises
        Unavailable instead of an OSError, for example of a full disk, except for files that are missing or exist.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._places.acquire()
                self._running += 1
                assert self._running <= _THREADS, "more calls than threads"
                call = functools.partial(work, *args, **kwargs)
                running = asyncio.get_running_loop().run_in_executor(self._threads, call)
                running.add_done_callback(self._ended)
                return await asyncio.shield(running)
        except TimeoutError:
            message = f"the voice storage has not answered within {self._timeout_s:g} s"
            raise Unavailable(message, "storage_timeout", self._timeout_s) from None
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            log.exception("the voice storage failed")
            reason = error.strerror or "its reason is in the log of the ingress"
            raise Unavailable(f"the voice storage failed: {reason}", "storage_failed", self._timeout_s) from error

    def _ended(self, running: "asyncio.Future[Result]") -> None:
        self._running -= 1
        assert self._running >= 0, "a call ended twice"
        self._places.release()
        if not running.cancelled():
            running.exception()  # retrieved, should its caller have given up
