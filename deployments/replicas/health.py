"""The health of a replica that computes. A replica that is beyond repair leaves at once, and Serve replaces it."""

import logging
import os
import threading
from collections.abc import Callable

from deployments.replicas.watchdog import Watchdog
from qwen_tts.errors import EngineStopped, InvalidRequest, RequestFailed

log = logging.getLogger("ray.serve")

# In this time the streams are told. They then continue on other replicas.
_GRACE_S = 0.5


class Health:
    """Whether a replica can be relied on. Any thread may call its methods."""

    def __init__(self) -> None:
        self.watchdog = Watchdog(self._hung)
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    @property
    def ok(self) -> bool:
        return self._error is None

    def check(self) -> None:
        """Raise EngineStopped if the replica is beyond repair."""
        if self._error is not None:
            raise EngineStopped("this replica can no longer be relied on") from self._error

    def failed(self, error: BaseException) -> None:
        """Note that the replica is beyond repair, and end its process soon. The first error counts."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
        leave_soon()  # first, because a thread that hangs may have the lock of the log
        log.critical("this replica can no longer be relied on; its process ends", exc_info=error)

    def judge(self, error: Exception, probe: Callable[[], None]) -> Exception:
        """Return the error for the caller of a computation that raised `error` although it was alone.

        If `probe`, which does not depend on any request, computes, the request was at fault. Otherwise the replica is.
        """
        if isinstance(error, InvalidRequest):
            return error
        try:
            self.check()
            probe()
        except Exception as fault:  # whatever it is, the next request would meet it too
            self.failed(fault)
            return EngineStopped("a replica can no longer be relied on")
        log.error("one request failed; other requests go on", exc_info=error)
        return RequestFailed(f"the model failed at this request: {type(error).__name__}")

    def _hung(self, stack: str) -> None:
        self.failed(TimeoutError(f"a computation does not end. Its thread is here:\n{stack}"))


def leave_soon() -> None:
    """End this process after a grace. Serve notices a death at once, but a failed check only after three periods."""
    timer = threading.Timer(_GRACE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()
