"""Facts about a RayService that waiting does not change. `status`, `wait` and `rollout` print them."""

from collections.abc import Iterator
from typing import cast

from deployments.commands.cluster.objects import HeadGroup, RayClusterSpec, WorkerGroup
from deployments.commands.cluster.rayservice import HEAD, Snapshot


def notes(snapshot: Snapshot) -> list[str]:
    """Return one sentence or more about each fact."""
    return [*differences(snapshot), *_of_release(snapshot)]


def differences(snapshot: Snapshot) -> list[str]:
    """Return how the newest cluster differs from the RayService in fields that KubeRay ignores.

    KubeRay gives these fields only to a new cluster, and makes none when only they change
    (GenerateHashWithoutReplicasAndWorkersToDelete in KubeRay's controllers/ray/utils/util.go).
    """
    newest = snapshot.clusters.get(snapshot.pending or snapshot.active or "")
    if newest is None or not snapshot.is_observed:  # a new cluster may follow
        return []
    made = _groups(newest.get("spec") or {})
    wanted = _groups(snapshot.service["spec"].get("rayClusterConfig") or {})
    return [line for name in wanted if name in made for line in _of_group(name, wanted[name], made[name])]


def _groups(spec: RayClusterSpec) -> dict[str, WorkerGroup]:
    """Return the groups by name. The head has no numbers of replicas."""
    head: HeadGroup = spec.get("headGroupSpec") or {}
    workers = {group["groupName"]: group for group in spec.get("workerGroupSpecs") or []}
    return {HEAD: cast(WorkerGroup, head), **workers}


def _of_group(name: str, wanted: WorkerGroup, made: WorkerGroup) -> Iterator[str]:
    numbers = (
        ("minReplicas", wanted.get("minReplicas"), made.get("minReplicas")),
        ("maxReplicas", wanted.get("maxReplicas"), made.get("maxReplicas")),
    )
    start = f"Group {name}: the running cluster was made with"
    for field, new, old in numbers:
        if new != old:
            yield f"{start} {field} {old}; `qwen-tts cluster rollout` brings {new}."
    present = made.get("template", {}).get("spec", {}).get("tolerations") or []
    missing = [one for one in wanted.get("template", {}).get("spec", {}).get("tolerations") or [] if one not in present]
    if missing:  # others than the RayService may add tolerations to a cluster
        keys = ", ".join(one.get("key", "any taint") for one in missing)
        yield f"{start}out the toleration for {keys}; `qwen-tts cluster rollout` brings it."


def _of_release(snapshot: Snapshot) -> Iterator[str]:
    release = snapshot.release
    if release is None or release.status == "deployed":
        return
    namespace = snapshot.service["metadata"]["namespace"]
    yield (
        f"Helm's release {release.name} is {release.status} at revision {release.revision}, so its objects may be of "
        "two revisions. If no helm command is running, run the last one again, or go back: "
        f"helm rollback {release.name} --namespace {namespace}"
    )
