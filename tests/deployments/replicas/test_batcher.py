"""Batching: the items that arrive while a batch runs are the next batch, and each item ends on its own."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.replicas.batcher import Batcher, first_come
from deployments.replicas.health import Health
from qwen_tts.errors import EngineStopped, InvalidRequest, RequestFailed
from tests.deployments.replicas.conftest import Leaving

BAD = 13
PATIENCE_S = 30.0


def computes() -> None:
    """A probe that succeeds."""


def lost() -> None:
    """A probe of a device that is lost."""
    raise RuntimeError("device lost")


class Doubler:
    """Doubles numbers, one batch per `let_go`. A batch with BAD fails."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._started = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self._started.release()
        assert self._gate.acquire(timeout=PATIENCE_S)
        if BAD in items:
            raise ArithmeticError(f"no double of {BAD}")
        return [2 * item for item in items]

    async def batch_started(self) -> None:
        assert await asyncio.to_thread(self._started.acquire, timeout=PATIENCE_S)

    def let_go(self, batches: int = 1) -> None:
        self._gate.release(batches)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


async def submit(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    """Return tasks whose items are in the queue."""
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_items_that_arrive_while_a_batch_runs_are_the_next_batch(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, first_come(10), Health(), computes)
    first = await submit(batcher, 1)
    await doubler.batch_started()
    later = await submit(batcher, 2, 3)
    later += await submit(batcher, 4)
    doubler.let_go(2)
    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8]
    assert doubler.batches == [[1], [2, 3, 4]]


async def test_a_batch_starts_without_company_when_the_worker_is_free(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    doubler.let_go(2)
    batcher = Batcher(doubler.run, executor, first_come(10), Health(), computes)
    assert await batcher.submit(1) == 2
    assert await batcher.submit(2) == 4, "the worker starts again after it had nothing to do"
    assert doubler.batches == [[1], [2]]


async def test_max_batch_in_order_of_arrival(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, first_come(3), Health(), computes)
    tasks = await submit(batcher, *range(7))
    doubler.let_go(3)
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0, 1, 2], [3, 4, 5], [6]]


async def test_an_item_that_cannot_be_computed_fails_alone(executor: ThreadPoolExecutor) -> None:
    doubler, health = Doubler(), Health()
    batcher = Batcher(doubler.run, executor, first_come(5), health, computes)
    tasks = await submit(batcher, 1, 2, 3, BAD, 5, 6)
    doubler.let_go(99)
    *results, after = await asyncio.gather(*tasks, return_exceptions=True)
    bad = results.pop(3)
    assert (results, after) == ([2, 4, 6, 10], 12)
    assert isinstance(bad, RequestFailed)
    assert doubler.batches == [[1, 2, 3, BAD, 5], [1, 2], [3, BAD, 5], [3], [BAD, 5], [BAD], [5], [6]]
    health.check()


async def test_a_mistake_of_one_caller_is_its_own(executor: ThreadPoolExecutor) -> None:
    def run(items: Sequence[int]) -> list[int]:
        if BAD in items:
            raise InvalidRequest("not this one", "item")
        return list(items)

    batcher = Batcher(run, executor, first_come(5), Health(), lost)
    one, bad = await asyncio.gather(*await submit(batcher, 1, BAD), return_exceptions=True)
    assert one == 1
    assert isinstance(bad, InvalidRequest)


async def test_a_device_that_is_lost_ends_everyone_and_blames_nobody(
    executor: ThreadPoolExecutor, leaving: Leaving
) -> None:
    doubler = Doubler()

    def run(items: Sequence[int]) -> list[int]:
        doubler.run(items)
        raise RuntimeError("device lost")

    batcher = Batcher(run, executor, first_come(4), Health(), lost)
    tasks = await submit(batcher, *range(6))
    doubler.let_go(99)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
    assert [type(result) for result in results] == [EngineStopped] * 6
    assert doubler.batches == [[0, 1, 2, 3], [0, 1], [0]], "a lost device is given more work"
    assert leaving.count == 1
    with pytest.raises(EngineStopped):
        await batcher.submit(7)


async def test_an_item_cancelled_while_parts_of_its_batch_run_is_not_run_again(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, first_come(4), Health(), computes)
    bad, other, gone, stays = await submit(batcher, BAD, 1, 2, 3)
    await doubler.batch_started()
    gone.cancel()
    doubler.let_go(99)
    assert isinstance((await asyncio.gather(bad, return_exceptions=True))[0], RequestFailed)
    assert (await other, await stays) == (2, 6)
    assert doubler.batches == [[BAD, 1, 2, 3], [BAD, 1], [BAD], [1], [3]]


async def test_an_item_cancelled_in_the_queue_is_not_run(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, first_come(2), Health(), computes)
    running, *waiting = await submit(batcher, 1) + await submit(batcher, 2, 3, 4)
    await doubler.batch_started()
    waiting[0].cancel()
    doubler.let_go(2)
    results = await asyncio.gather(running, *waiting, return_exceptions=True)
    assert isinstance(results.pop(1), asyncio.CancelledError)
    assert results == [2, 6, 8]
    assert doubler.batches == [[1], [3, 4]], "another item has taken its place in the batch"


async def test_an_item_cancelled_while_it_runs_leaves_its_companions(executor: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, first_come(2), Health(), computes)
    gone, stays = await submit(batcher, 1, BAD + 1)
    await doubler.batch_started()
    gone.cancel()
    doubler.let_go(2)
    assert await stays == 2 * (BAD + 1)
    assert await batcher.submit(3) == 6
    assert gone.cancelled()


async def test_the_chosen_items_run_and_the_others_keep_their_order(executor: ThreadPoolExecutor) -> None:
    """The choice is the largest number and all numbers that end in the same digit."""

    def choose(waiting: Sequence[int]) -> list[int]:
        largest = max(waiting)
        return [index for index, item in enumerate(waiting) if (largest - item) % 10 == 0]

    doubler = Doubler()
    batcher = Batcher(doubler.run, executor, choose, Health(), computes)
    tasks = await submit(batcher, 5)
    await doubler.batch_started()
    tasks += await submit(batcher, 12, 31, 22, 21, 14)
    doubler.let_go(4)
    assert await asyncio.gather(*tasks) == [10, 24, 62, 44, 42, 28]
    assert doubler.batches == [[5], [31, 21], [12, 22], [14]]


async def test_a_result_too_few_is_noticed(executor: ThreadPoolExecutor) -> None:
    """No item gets the result of another."""
    spoilt = [True, False, False]
    batcher = Batcher[int, int](
        lambda items: list(items)[1:] if spoilt.pop(0) else list(items), executor, first_come(3), Health(), computes
    )
    assert await asyncio.gather(*await submit(batcher, 1, 2, 3)) == [1, 2, 3]
    assert not spoilt


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (None, "no choice"),
        ([], "none of 2 waiting items was chosen"),
        ([0, 2], "[0, 2] chosen of 2 waiting items"),
    ],
    ids=["raises", "nobody", "somebody else"],
)
async def test_a_choice_that_fails_fails_those_that_wait_and_the_replica_leaves(
    executor: ThreadPoolExecutor, leaving: Leaving, choice: list[int] | None, message: str
) -> None:
    def choose(waiting: Sequence[int]) -> Sequence[int]:
        if BAD not in waiting:
            return range(len(waiting))
        if choice is None:
            raise ArithmeticError("no choice")
        return choice

    batcher = Batcher[int, int](lambda items: list(items), executor, choose, Health(), computes)
    tasks = await submit(batcher, BAD, 1)
    one, other = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
    assert message in str(one)
    assert message in str(other)
    assert leaving.count == 1
