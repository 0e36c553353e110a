"""A new cluster for the same specification, which takes over without a gap: a restart of everything."""

from datetime import UTC, datetime

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError
from deployments.commands.cluster.rayservice import read
from deployments.commands.cluster.resources import RAY_SERVICES

_ANNOTATION = "qwen-tts/restarted-at"
# Another manager than that of `apply`, so that the next apply neither removes the annotation nor argues about it.
_FIELD_MANAGER = "qwen-tts-rollout"


def restart(api: Api, name: str) -> str:
    """Ask for a new cluster; the name of the one that is to be replaced.

    KubeRay prepares a new cluster when the specification of the present one changes, which an annotation of the head's
    pods does. Raises ClusterError when it would not, or when there is nothing to replace.
    """
    snapshot = read(api, name)
    if snapshot.active is None:
        raise ClusterError(
            f"RayService {name} serves nothing yet that could be replaced: see `qwen-tts cluster status`"
        )
    if snapshot.pending:
        raise ClusterError(
            f"RayService {name} is being upgraded already: cluster {snapshot.pending} is to replace {snapshot.active}"
        )
    if snapshot.service["spec"].get("upgradeStrategy", {}).get("type") == "None":
        raise ClusterError(
            f"RayService {name} has spec.upgradeStrategy.type None: KubeRay would not make a new cluster"
        )
    annotations = {_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")}
    template = {"metadata": {"annotations": annotations}}
    patch = {"spec": {"rayClusterConfig": {"headGroupSpec": {"template": template}}}}
    api.merge(RAY_SERVICES, name, patch, _FIELD_MANAGER)
    return snapshot.active
