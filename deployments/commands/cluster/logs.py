"""The logs of a service's pods; each line begins with the name of its pod."""

import queue
import threading
from collections.abc import Callable

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError
from deployments.commands.cluster.objects import Pod
from deployments.commands.cluster.rayservice import Snapshot, group_of

ALL = "all"

Write = Callable[[str], None]


def pods_of_group(snapshot: Snapshot, group: str) -> list[Pod]:
    """Return the pods of a group (`head`, a worker group, `all`).

    Raises ClusterError, which names the existing groups, if there are no such pods.
    """
    chosen = [pod for pod in snapshot.pods if group in (ALL, group_of(pod))]
    if not chosen:
        groups = sorted({group_of(pod) for pod in snapshot.pods})
        existing = f"; there are pods of: {', '.join(groups)}" if groups else ""
        raise ClusterError(f"RayService {snapshot.name} has no pods of {group}{existing}")
    return chosen


def write_logs(api: Api, pods: list[Pod], tail: int, write: Write) -> None:
    """Write the last `tail` lines of each pod, one pod after the other."""
    for pod in pods:
        _write_log(api, pod, tail, False, write)


def follow_logs(api: Api, pods: list[Pod], tail: int, write: Write) -> None:
    """Write the lines of all pods as they arrive, until every log has ended."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def follow(pod: Pod) -> None:
        try:
            _write_log(api, pod, tail, True, lines.put)
        finally:
            lines.put(None)

    for pod in pods:
        threading.Thread(target=follow, args=(pod,), daemon=True).start()
    ended = 0
    while ended < len(pods):
        line = lines.get()
        if line is None:
            ended += 1
        else:
            write(line)
    assert lines.empty(), "a line came after the end of its log"


def _write_log(api: Api, pod: Pod, tail: int, follow: bool, write: Write) -> None:
    """Write the log of the first container, which is Ray's. If the log cannot be read, the error is written instead."""
    name = pod["metadata"]["name"]
    try:
        for line in api.pod_log(name, pod["spec"]["containers"][0]["name"], tail, follow):
            write(f"[{name}] {line}")
    except ClusterError as error:
        write(f"[{name}] ({error})")
