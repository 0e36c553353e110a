"""Storage that hangs, fails or works."""

import asyncio
import threading

import pytest

from deployments.errors import Unavailable
from deployments.voices.threads import StorageThreads


async def test_answers_and_errors_pass_through() -> None:
    storage = StorageThreads(10.0)
    assert await storage.run(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(FileNotFoundError):
        await storage.run(open, "/no/such/file")


async def test_storage_that_hangs_costs_its_callers_a_503_and_others_nothing() -> None:
    storage, go = StorageThreads(0.2), threading.Event()
    answers = await asyncio.gather(*(storage.run(go.wait, 60) for _ in range(40)), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, Unavailable)
        assert answer.code == "storage_timeout"
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 10) == 1, "other threads are free"
    go.set()
    assert await StorageThreads(10.0).run(lambda: 2) == 2
