"""An event loop whose clock stands still while anything runs, and leaps to the next timer when nothing does."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, ParamSpec

import pytest

Given = ParamSpec("Given")

# What one socket of the loop has sent to another is at its end within this real time.
_DELIVERY_S = 0.01


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Work takes no time here, unless a test says so with `pass_s`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__(_LeapingSelector(self.pass_s))

    def time(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        """Let the clock go on, as it does while a callback keeps the loop busy."""
        self.now_s += seconds

    def run_in_executor(self, *_: object) -> NoReturn:
        raise AssertionError("the clock would leap while the thread works")


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(_DELIVERY_S)
        if not ready:
            self._leap(timeout)
        return ready


def in_virtual_time(
    *modules: ModuleType,
) -> Callable[[Callable[Given, Coroutine[Any, Any, None]]], Callable[Given, None]]:
    """Run an async test on a VirtualTimeLoop, whose clock is the `time` of these modules meanwhile."""

    def decorated(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
        @functools.wraps(test)
        def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
            loop = VirtualTimeLoop()
            clock = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time, time=loop.time)
            with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=lambda: loop) as runner:
                for module in modules:
                    patch.setattr(module, "time", clock)
                runner.run(test(*args, **kwargs))

        return run

    return decorated
