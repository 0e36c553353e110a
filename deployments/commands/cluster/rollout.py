"""A restart without downtime: a new cluster of the same specification takes over from the present one."""

from datetime import UTC, datetime

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError
from deployments.commands.cluster.notes import differences
from deployments.commands.cluster.rayservice import read
from deployments.commands.cluster.resources import RAY_SERVICES

_ANNOTATION = "qwen-tts/restarted-at"
# Not the field manager of `apply`: the next apply must neither remove the annotation nor conflict with it.
_FIELD_MANAGER = "qwen-tts-rollout"


def restart(api: Api, name: str) -> str:
    """Request a new cluster, and return the name of the cluster that it is to replace.

    KubeRay prepares a new cluster when the specification changes. A new annotation on the head's pods is such a change.
    A cluster that does not serve yet is replaced only if it differs from the RayService. Raises ClusterError if there
    is no cluster to replace, or if KubeRay's upgrade strategy is None.
    """
    snapshot = read(api, name)
    replaced = snapshot.pending or snapshot.active
    outdated = bool(differences(snapshot))
    if replaced is None or (snapshot.active is None and not outdated):
        raise ClusterError(
            f"RayService {name} serves nothing yet, so there is no cluster to replace: see `qwen-tts cluster status`"
        )
    if snapshot.pending and not outdated:
        raise ClusterError(
            f"RayService {name} is already being upgraded: cluster {snapshot.pending} is to replace {snapshot.active}"
        )
    if snapshot.service["spec"].get("upgradeStrategy", {}).get("type") == "None":
        raise ClusterError(
            f"RayService {name} has spec.upgradeStrategy.type None, so KubeRay would not create a new cluster"
        )
    annotations = {_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")}
    template = {"metadata": {"annotations": annotations}}
    patch = {"spec": {"rayClusterConfig": {"headGroupSpec": {"template": template}}}}
    api.merge(RAY_SERVICES, name, patch, _FIELD_MANAGER)
    return replaced
