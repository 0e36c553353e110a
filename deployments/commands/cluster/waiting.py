"""Waits for a RayService, shows how far it is, and gives up with the reason when waiting will not help."""

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

_WATCH_S = 2  # pods are read anew at least as often, and at once when the RayService changes
_BREATH_S = 0.2  # between two readings, however often it changes
_TELL_AFTER_S = 5  # what passes sooner is how every start looks

Show = Callable[[Snapshot, list[Cause]], None]


@dataclass(frozen=True)
class Patience:
    """timeout_s: for the whole wait; stuck_after_s: how long one and the same cause may stand."""

    timeout_s: float
    stuck_after_s: float


def wait_ready(api: Api, name: str, patience: Patience, show: Show, replaced: str | None = None) -> Snapshot:
    """Until the service serves what was last applied, from another cluster than `replaced`.

    A silent API server counts as a cause like others, once it has answered. Raises Stuck, ClusterError.
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
            how = f"is not ready, and for {patience.stuck_after_s:g} s nothing has changed about this"
            raise Stuck(f"RayService {name} {how}:\n{explain(api, causes)}")
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
    """Of a service that is waited for."""
    causes = diagnose(snapshot, datetime.now(UTC))
    if snapshot.is_ready:  # but not from another cluster
        causes.append(Cause("no new cluster", "KubeRay makes no new cluster. Is its ENABLE_ZERO_DOWNTIME false?"))
    return causes


class _Standing:
    """For how long each cause has been seen without a break."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._causes: list[Cause] = []

    def note(self, causes: list[Cause]) -> None:
        now = time.monotonic()
        self._since = {cause.key: self._since.get(cause.key, now) for cause in causes}
        self._causes = causes

    def lasting(self, least_s: float) -> list[Cause]:
        now = time.monotonic()
        return [cause for cause in self._causes if now - self._since[cause.key] >= least_s]


def wait_gone(api: Api, name: str, timeout_s: float) -> None:
    """Until the RayService and its pods are gone. Raises Stuck, ClusterError."""
    deadline = time.monotonic() + timeout_s
    pods = -1
    while time.monotonic() < deadline:
        try:
            snapshot = read(api, name)
        except NotFound:
            return
        pods = len(snapshot.pods)
        api.wait_for_change(RAY_SERVICES, snapshot.service, _WATCH_S)
        time.sleep(_BREATH_S)
    raise Stuck(
        f"RayService {name} is not gone after {timeout_s:g} s: {pods} pods are left. The KubeRay operator takes its "
        "finalizer off when its clusters are gone, and must be running for that."
    )


def _read(api: Api, name: str) -> Snapshot:
    try:
        return read(api, name)
    except NotFound:
        raise ClusterError(f"RayService {name} is gone") from None
