"""Waiting for a RayService: shows the progress, and gives up with the reason when waiting will not help."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.diagnosis import Cause, diagnose, explain
from deployments.commands.cluster.errors import ApiError, ClusterError, NotFound, Stuck, Unreachable
from deployments.commands.cluster.rayservice import Snapshot, read
from deployments.commands.cluster.report import progress_line
from deployments.commands.cluster.resources import RAY_SERVICES

_WATCH_S = 2  # the longest time between two reads; a change of the RayService causes a read at once
_BREATH_S = 0.2  # the shortest time between two reads
_TELL_AFTER_S = 5  # a cause is shown when it has lasted this long: shorter ones occur at every start

Show = Callable[[Snapshot, list[Cause]], None]


@dataclass(frozen=True)
class Patience:
    """The limits of a wait. timeout_s: of the whole wait; stuck_after_s: how long one cause may last."""

    timeout_s: float
    stuck_after_s: float

    def __post_init__(self) -> None:
        assert self.timeout_s >= 0, f"the whole wait has {self.timeout_s} s"
        assert self.stuck_after_s >= 0, f"a cause may last {self.stuck_after_s} s"


def wait_ready(api: Api, name: str, patience: Patience, show: Show, replaced: str | None = None) -> Snapshot:
    """Wait until the service serves what was last applied, from another cluster than `replaced`.

    If the API server stops answering during the wait, its silence is a cause like any other. Raises Stuck at a limit
    of `patience`, and ClusterError.
    """
    start = time.monotonic()
    standing = _Standing()
    snapshot = _read(api, name)
    causes = _causes(snapshot)
    watch_s = max(1, min(_WATCH_S, int(patience.stuck_after_s)))
    while not snapshot.is_ready or snapshot.active == replaced:
        standing.note(causes)
        show(snapshot, standing.lasting(_TELL_AFTER_S))
        if standing.lasting(patience.stuck_after_s):
            state = f"is not ready, and for {patience.stuck_after_s:g} s nothing has changed about this"
            raise Stuck(f"RayService {name} {state}:\n{explain(api, causes)}")
        if time.monotonic() - start >= patience.timeout_s:
            reasons = explain(api, causes) or f"- {progress_line(snapshot)}"
            raise Stuck(f"RayService {name} is not ready after {patience.timeout_s:g} s:\n{reasons}")
        try:
            api.wait_for_change(RAY_SERVICES, snapshot.service, watch_s)
            snapshot = _read(api, name)
            causes = _causes(snapshot)
        except (Unreachable, ApiError) as error:
            if isinstance(error, ApiError) and error.status < 500 and error.status not in (410, 429):
                raise
            causes = [Cause("silent", str(error))]
        time.sleep(_BREATH_S)
    show(snapshot, [])
    return snapshot


def _causes(snapshot: Snapshot) -> list[Cause]:
    """Return the causes why the wait goes on."""
    causes = diagnose(snapshot, datetime.now(UTC))
    if snapshot.is_ready:  # ready, but the wait is for another cluster
        causes.append(Cause("no new cluster", "KubeRay creates no new cluster. Is its ENABLE_ZERO_DOWNTIME false?"))
    return causes


class _Standing:
    """The time since when each cause has been seen without a break."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._causes: list[Cause] = []

    def note(self, causes: list[Cause]) -> None:
        """Record the causes of one read. A cause that is not among them starts from zero if it comes back."""
        now = time.monotonic()
        self._since = {cause.key: self._since.get(cause.key, now) for cause in causes}
        assert len(self._since) == len(causes), "two causes share a key, so one would hide the age of the other"
        self._causes = causes

    def lasting(self, least_s: float) -> list[Cause]:
        """Return the present causes that have lasted at least `least_s` seconds."""
        now = time.monotonic()
        return [cause for cause in self._causes if now - self._since[cause.key] >= least_s]


def _read(api: Api, name: str) -> Snapshot:
    try:
        return read(api, name)
    except NotFound:
        raise ClusterError(f"RayService {name} is gone") from None
