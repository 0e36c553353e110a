"""Work for several callers is done once. A failure, or a caller that leaves, affects no later caller."""

import asyncio

import pytest

from deployments.voices.once_each import OnceEach


class Work:
    """Work that returns its key once it is released. Keys below zero fail."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go = asyncio.Event()

    async def do(self, key: int) -> int:
        self.begun.append(key)
        await self.go.wait()
        if key < 0:
            raise ArithmeticError(key)
        return key


async def ask(once: OnceEach[int, int], work: Work, *keys: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(once.get(key, lambda key=key: work.do(key))) for key in keys]  # type: ignore[misc]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_many_who_ask_share_one_answer() -> None:
    once, work = OnceEach[int, int](10), Work()
    tasks = await ask(once, work, 1, 1, 2, 1)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 2, 1]
    assert await once.get(1, lambda: work.do(1)) == 1
    assert work.begun == [1, 2]


async def test_a_failure_is_everybodys_who_waited_and_nobodys_after() -> None:
    once, work = OnceEach[int, int](10), Work()
    tasks = await ask(once, work, -1, -1)
    work.go.set()
    for task in tasks:
        with pytest.raises(ArithmeticError):
            await task
    with pytest.raises(ArithmeticError):
        await once.get(-1, lambda: work.do(-1))
    assert work.begun == [-1, -1], "failed work is not tried again"


async def test_the_first_to_ask_may_leave() -> None:
    once, work = OnceEach[int, int](10), Work()
    first, second = await ask(once, work, 1, 1)
    first.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await second == 1
    assert first.cancelled()
    assert work.begun == [1]


async def test_a_failure_nobody_waits_for_is_forgotten_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    once, work = OnceEach[int, int](10), Work()
    (only,) = await ask(once, work, -1)
    only.cancel()
    work.go.set()
    await asyncio.gather(only, return_exceptions=True)
    await asyncio.sleep(0)
    assert caplog.records == [], "no 'exception was never retrieved'"


async def test_the_results_used_last_are_kept() -> None:
    once, work = OnceEach[int, int](2), Work()
    work.go.set()
    for key in (1, 2, 1, 3, 1, 2):
        assert await once.get(key, lambda key=key: work.do(key)) == key  # type: ignore[misc]
    assert work.begun == [1, 2, 3, 2]


async def test_work_pushed_out_while_under_way_still_answers() -> None:
    once, work = OnceEach[int, int](1), Work()
    tasks = await ask(once, work, 1, 2)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 2]
