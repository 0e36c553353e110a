"""A computation that never ends is noticed by the ticks that it outlasts."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from deployments.replicas.health import Health
from deployments.replicas.watchdog import _TICKS, Watchdog
from qwen_tts.errors import EngineStopped
from tests.deployments.replicas.conftest import Leaving

PATIENCE_S = 30.0


@contextmanager
def a_thread_that_hangs(watchdog: Watchdog) -> Iterator[None]:
    """Compute in another thread until the end of the context."""
    began, gate = threading.Event(), threading.Event()

    def hang_in_here() -> None:
        with watchdog.computing():
            began.set()
            assert gate.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(hang_in_here)
        assert began.wait(PATIENCE_S)
        yield
        gate.set()
        done.result()


def tick(watchdog: Watchdog, count: int) -> None:
    for _ in range(count):
        watchdog.tick()


def test_a_computation_that_outlasts_the_ticks_is_told_once_with_its_stack() -> None:
    told: list[str] = []
    watchdog = Watchdog(told.append)
    with a_thread_that_hangs(watchdog):
        tick(watchdog, _TICKS)
        assert told == []
        tick(watchdog, 20)
        assert len(told) == 1
    assert "hang_in_here" in told[0], "the stack is of another thread"


def test_progress_and_idleness_are_no_hangs() -> None:
    told: list[str] = []
    watchdog = Watchdog(told.append)
    tick(watchdog, 20)
    for _ in range(5):
        with watchdog.computing():
            tick(watchdog, _TICKS)
    tick(watchdog, 20)
    with pytest.raises(ArithmeticError), watchdog.computing():
        raise ArithmeticError
    tick(watchdog, 20)
    assert told == []


def test_one_thread_hangs_while_another_makes_progress() -> None:
    told: list[str] = []
    watchdog = Watchdog(told.append)
    with a_thread_that_hangs(watchdog):
        for _ in range(_TICKS + 1):
            with watchdog.computing():
                tick(watchdog, 1)
    assert len(told) == 1
    assert "hang_in_here" in told[0]


def test_a_replica_that_hangs_leaves(leaving: Leaving, caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    with a_thread_that_hangs(health.watchdog):
        health.watchdog.start(0.01)
        deadline = threading.Event()
        while not leaving.count:
            deadline.wait(0.005)
    with pytest.raises(EngineStopped):
        health.check()
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert "hang_in_here" in caplog.text
