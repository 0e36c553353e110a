"""The health of a replica that computes in batches: whether Serve must replace the replica."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from qwen_tts.errors import InvalidRequest

log = logging.getLogger("ray.serve")

# One failure may be due to its input. A device that is lost fails everything from then on.
_MOST_FAILURES = 3


class Health:
    """Counts computations that failed in a row. `failed` may be called by any thread, the rest by one only."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._latest: Exception | None = None
        self._bug: Exception | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count a computation. A success ends the row. A failure that is the caller's fault counts as neither."""
        try:
            yield
        except InvalidRequest:
            raise
        except Exception as error:
            self._in_a_row, self._latest = self._in_a_row + 1, error
            raise
        self._in_a_row = 0

    def failed(self, error: Exception) -> None:
        """Note a bug of our own that nobody awaits: the replica is unhealthy from now on."""
        log.error("this replica can no longer be relied on", exc_info=error)
        self._bug = error

    def check(self) -> None:
        """Raise RuntimeError if the replica must be replaced."""
        if self._bug is not None:
            raise RuntimeError("this replica can no longer be relied on") from self._bug
        if self._in_a_row >= _MOST_FAILURES:
            raise RuntimeError(f"the latest {self._in_a_row} batches have failed") from self._latest
