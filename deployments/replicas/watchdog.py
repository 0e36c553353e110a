"""Notices computations that never end, as when a device hangs."""

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A computation hangs if this many ticks pass while it runs. Ticks are counted instead of seconds, so that a process
# that was stopped for a while is not taken for one that hangs.
_TICKS = 5


class Watchdog:
    """Watches the threads that compute. Only `computing` is called by them."""

    def __init__(self, hung: Callable[[str], None]) -> None:
        """hung: called with the stack of a thread that hangs, at most once per computation."""
        self._hung = hung
        self._ticks: dict[int, int] = {}  # since the computation of a thread began
        self._lock = threading.Lock()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Watch one computation of the calling thread."""
        thread = threading.get_ident()
        with self._lock:
            assert thread not in self._ticks, "a computation within another would end the watch too early"
            self._ticks[thread] = 0
        try:
            yield
        finally:
            with self._lock:
                del self._ticks[thread]

    def start(self, timeout_s: float) -> None:
        """Watch from now on, in a thread of its own. Everything before is warm-up."""
        threading.Thread(target=self._watch, args=(timeout_s / _TICKS,), name="watchdog", daemon=True).start()

    def tick(self) -> None:
        """Count one tick for every computation that runs."""
        with self._lock:
            for thread in self._ticks:
                self._ticks[thread] += 1
            hanging = [thread for thread, ticks in self._ticks.items() if ticks == _TICKS + 1]
        for thread in hanging:
            self._hung("".join(traceback.format_stack(sys._current_frames().get(thread))))

    def _watch(self, tick_s: float) -> None:
        never = threading.Event()
        while not never.wait(tick_s):
            self.tick()
