"""A bound on the audio that one ingress replica holds for its callers.

Serve accepts every piece of an answer at once, however slowly the client reads. So an ingress counts by itself. A
whole file counts until its answer has been made. A stream counts by its bytes that are ahead of its playback.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qwen_tts.errors import Overloaded

# A stream with no more audio than this ahead of its playback never waits.
_NEVER_HELD_BACK_S = 5.0
_LONGEST_WAIT_S = 0.25


class AudioBudget:
    """A budget of `most_bytes` for all answers together. It is used on one event loop."""

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_bytes = most_bytes
        self.shares = 0  # answers under way
        self._clock = clock
        self._held_bytes = 0

    @contextmanager
    def share(self) -> Iterator["BudgetShare"]:
        """Yield the share of one answer. The share is given back when the context ends."""
        share = BudgetShare(self, self._clock)
        self.shares += 1
        try:
            yield share
        finally:
            share.hold(0)
            self.shares -= 1
            assert self.shares >= 0, "more answers ended than began"

    def change(self, by_bytes: int) -> None:
        self._held_bytes += by_bytes
        assert self._held_bytes >= 0, "an answer gave back more audio than it held"

    @property
    def exceeded(self) -> bool:
        return self._held_bytes > self.most_bytes


class BudgetShare:
    """One answer's part of the budget."""

    def __init__(self, budget: AudioBudget, clock: Callable[[], float]) -> None:
        self._budget = budget
        self._clock = clock
        self._held_bytes = 0
        self._sent_bytes = 0
        self._sent_s = 0.0
        self._began_s: float | None = None

    def hold(self, size_bytes: int) -> None:
        assert size_bytes >= 0, "an answer cannot hold less than nothing"
        self._budget.change(size_bytes - self._held_bytes)
        self._held_bytes = size_bytes

    def collect(self, size_bytes: int) -> None:
        """Count a piece of a whole file. Raises Overloaded when the budget is spent."""
        self.hold(self._held_bytes + size_bytes)
        if self._budget.exceeded:
            raise Overloaded("the service holds too many whole files; stream this one, or send the request again later")

    async def send(self, size_bytes: int, audio_s: float) -> None:
        """Count a piece of a stream before it is sent. Waits for the playback while the budget is spent."""
        self._began_s = self._clock() if self._began_s is None else self._began_s
        self._sent_bytes += size_bytes
        self._sent_s += audio_s
        while True:
            ahead_s = max(0.0, self._sent_s - (self._clock() - self._began_s))
            self.hold(round(self._sent_bytes * ahead_s / self._sent_s) if self._sent_s else 0)
            if not self._budget.exceeded or ahead_s <= _NEVER_HELD_BACK_S:
                return
            await asyncio.sleep(min(ahead_s - _NEVER_HELD_BACK_S, _LONGEST_WAIT_S))
