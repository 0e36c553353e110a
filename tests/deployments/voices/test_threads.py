"""Storage that hangs, fails or works."""

import asyncio
import contextlib
import errno
import gc
import os
import threading
import weakref

import pytest

from deployments.errors import Unavailable
from deployments.voices.threads import StorageThreads


async def test_answers_and_errors_pass_through() -> None:
    storage = StorageThreads(60.0)
    assert await storage.run(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(FileNotFoundError):
        await storage.run(open, "/no/such/file")


async def test_storage_that_hangs_costs_its_callers_a_503_and_others_nothing() -> None:
    storage, go = StorageThreads(0.2), threading.Event()
    waited: list[bool] = []

    def hang() -> None:
        waited.append(go.wait(60))

    answers = await asyncio.gather(*(storage.run(hang) for _ in range(40)), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, Unavailable)
        assert answer.code == "storage_timeout"
    assert await asyncio.to_thread(lambda: 1) == 1
    assert waited == [], "asyncio's threads are blocked by those of the storage"
    go.set()
    assert await StorageThreads(60.0).run(lambda: 2) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/voices/secret"), "No space left on device"),
        (OSError("a bucket's client failed, with an address"), "its reason is in the log of the ingress"),
    ],
)
async def test_storage_that_fails_costs_a_503_without_its_details(error: OSError, message: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(Unavailable) as refused:
        await StorageThreads(60.0).run(fail)
    assert (refused.value.code, refused.value.message) == ("storage_failed", f"the voice storage failed: {message}")


class Upload:
    """Stands for the bytes of an upload. A weak reference shows when it is freed."""


async def test_callers_that_gave_up_leave_nothing_behind() -> None:
    """While the storage hangs, the uploads that wait for it must not stay in memory."""
    storage, go = StorageThreads(0.2), threading.Event()
    alive = weakref.WeakSet[Upload]()

    async def upload() -> None:
        data = Upload()
        alive.add(data)
        with contextlib.suppress(Unavailable):
            await storage.run(lambda content: go.wait(60), data)

    await asyncio.gather(*(upload() for _ in range(200)))
    gc.collect()
    assert len(alive) == 32, "uploads are kept that no thread uses"
    with pytest.raises(Unavailable):
        await storage.run(lambda: 1)
    go.set()
    answer = None
    while answer is None:  # the threads that hung may end later
        with contextlib.suppress(Unavailable):
            answer = await storage.run(lambda: 2)
    assert answer == 2
