"""Waits for a RayService, shows how far it is, and gives up with the reason when waiting will not help."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.api import RAY_SERVICES, Api
from cluster.diagnosis import Cause, diagnose, explain
from cluster.errors import ApiError, ClusterError, NotFound, Stuck, Unreachable
from cluster.rayservice import Snapshot, read
from cluster.report import progress_line

_WATCH_S = 2  # pods are read anew as often, and at once when the RayService changes
_BREATH_S = 0.2  # between two readings, however often it changes

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
    snapshot = _read(api, name)
    since: dict[str, float] = {}
    while True:
        if snapshot.is_ready and snapshot.active != replaced:
            show(snapshot, [])
            return snapshot
        causes = diagnose(snapshot, datetime.now(UTC))
        if snapshot.is_ready:
            causes.append(Cause("no new cluster", "KubeRay makes no new cluster. Is its ENABLE_ZERO_DOWNTIME false?"))
        show(snapshot, causes)
        _give_up(api, snapshot, causes, since, patience, start)
        try:
            api.wait_for_change(RAY_SERVICES, snapshot.service, _WATCH_S)
            time.sleep(_BREATH_S)
            snapshot = _read(api, name)
            since.pop("silent", None)
        except (Unreachable, ApiError) as error:
            if isinstance(error, ApiError) and error.status < 500 and error.status not in (410, 429):
                raise
            silent = Cause("silent", str(error))
            show(snapshot, [silent])
            _give_up(api, snapshot, [silent], since, patience, start)
            time.sleep(_BREATH_S)


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
    held = f"{pods} pods are still there; "
    raise Stuck(
        f"RayService {name} is not gone after {timeout_s:.0f} s: {held}the KubeRay operator takes its finalizer off "
        "when its clusters are gone, and must be running for that."
    )


def _read(api: Api, name: str) -> Snapshot:
    try:
        return read(api, name)
    except NotFound:
        raise ClusterError(f"RayService {name} is gone") from None


def _give_up(
    api: Api, snapshot: Snapshot, causes: list[Cause], since: dict[str, float], patience: Patience, start: float
) -> None:
    """Raise Stuck if one of the causes has stood too long, or time is up; since: when each was first seen."""
    now = time.monotonic()
    keys = {cause.key for cause in causes}
    for key in since.keys() - keys:
        del since[key]
    for key in keys:
        since.setdefault(key, now)
    if any(now - first >= patience.stuck_after_s for first in since.values()):
        how = f"is not ready, and for {patience.stuck_after_s:.0f} s nothing has changed about this"
    elif now - start >= patience.timeout_s:
        how = f"is not ready after {patience.timeout_s:.0f} s"
    else:
        return
    reasons = explain(api, causes) if causes else f"- {progress_line(snapshot)}"
    raise Stuck(f"RayService {snapshot.name} {how}:\n{reasons}")
