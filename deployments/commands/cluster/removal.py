"""The deletion of a RayService and of all objects with its label app.kubernetes.io/instance."""

from dataclasses import dataclass

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError, NotFound
from deployments.commands.cluster.objects import Object
from deployments.commands.cluster.resources import RAY_SERVICES, Resource

_INSTANCE = "app.kubernetes.io/instance"
_HELM_RELEASE = "meta.helm.sh/release-name"
# Kinds that a release may contain. Kinds that the server does not know are skipped.
_KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("v1", "Pod"),
    ("batch/v1", "Job"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)
_CLAIM = ("v1", "PersistentVolumeClaim")


@dataclass(frozen=True)
class Belonging:
    """One object of the service."""

    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.name}"


@dataclass(frozen=True)
class Removal:
    """The plan of a deletion.

    goes: the objects to delete, in this order; stays: volume claims, because their data could not be restored.
    """

    goes: list[Belonging]
    stays: list[Belonging]

    def __post_init__(self) -> None:
        assert self.goes[:1] == [one for one in self.goes if one.resource == RAY_SERVICES], "the RayService goes first"
        kinds = {belonging.resource.kind for belonging in self.goes}
        assert _CLAIM[1] not in kinds, "a volume claim would be deleted with its data"


def plan_removal(api: Api, name: str) -> Removal:
    """Return what `remove` would delete. Raises ClusterError, also if the service is a Helm release."""
    service = api.get(Object, RAY_SERVICES, name)["metadata"]
    if release := service.get("annotations", {}).get(_HELM_RELEASE):
        raise ClusterError(f"Helm installed this; delete it with: helm uninstall {release} -n {api.namespace}")
    goes = [Belonging(RAY_SERVICES, name)]
    instance = service.get("labels", {}).get(_INSTANCE)
    if instance is None:
        return Removal(goes, [])
    for api_version, kind in _KINDS:
        goes += _labelled(api, api_version, kind, instance)
    return Removal(goes, _labelled(api, *_CLAIM, instance))


def remove(api: Api, removal: Removal) -> None:
    """Delete all objects of the plan. Raises ClusterError."""
    for belonging in removal.goes:
        try:
            api.delete(belonging.resource, belonging.name)
        except NotFound:  # already deleted together with its owner
            continue


def _labelled(api: Api, api_version: str, kind: str, instance: str) -> list[Belonging]:
    """Return the objects of a kind with the label. Objects with an owner are left out: they go with their owner."""
    resource = api.resource_of(api_version, kind)
    if resource is None:
        return []
    assert resource.namespaced, f"{kind} belongs to the whole cluster: its objects are not this namespace's to delete"
    found = [item["metadata"] for item in api.find(Object, resource, labels=f"{_INSTANCE}={instance}")]
    return [Belonging(resource, item["name"]) for item in found if not item.get("ownerReferences")]
