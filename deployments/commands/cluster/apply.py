"""Server-side apply of the objects of a manifest: first a dry run of all of them, then the real changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from deployments.commands.cluster.api import Api, operator_missing
from deployments.commands.cluster.errors import BadManifest, ClusterError, Conflict, NotFound
from deployments.commands.cluster.manifest import Document
from deployments.commands.cluster.objects import Object
from deployments.commands.cluster.resources import NAMESPACES, RAY_SERVICES, Resource

Outcome = Literal["created", "configured", "unchanged"]
# KubeRay adds a finalizer to every RayService by an update of the whole object. If the file omits fields that Go then
# writes as empty, the operator owns the list of worker groups for ever, though it has changed nothing in it.
_OPERATOR = 'conflict with "kuberay-operator"'


@dataclass(frozen=True, eq=False)  # compared by identity: a target is a key of a dict, and its body cannot be hashed
class Target:
    """A document with the resource and the namespace it is applied to."""

    document: Document
    resource: Resource
    namespace: str

    def __str__(self) -> str:
        return f"{self.document.kind} {self.document.name}"


def targets_of(api: Api, documents: list[Document], source: str, namespace_given: bool) -> list[Target]:
    """Return the target of each document.

    Raises ClusterError if the server does not know a kind, or if a document names another namespace than -n.
    """
    targets: list[Target] = []
    faults: list[str] = []
    for document in documents:
        resource = api.resource_of(document.body["apiVersion"], document.kind)
        own = document.body["metadata"].get("namespace")
        if resource is None and document.kind == RAY_SERVICES.kind:
            raise operator_missing(api.host)
        if resource is None:
            kind = f"{document.kind} of {document.body['apiVersion']}"
            faults.append(f"{source}:{document.line}: {api.host} does not know the kind {kind}")
        elif resource.namespaced and namespace_given and own not in (None, api.namespace):
            named = f"{document.kind} {document.name}"
            faults.append(f"{source}:{document.line}: {named} is for namespace {own}, not for {api.namespace}")
        else:
            targets.append(Target(document, resource, own or api.namespace))
    if faults:
        raise BadManifest("\n".join(faults))
    assert len(targets) == len(documents), "a document has neither a target nor a fault"
    return targets


def apply(api: Api, targets: list[Target], force_conflicts: bool) -> Iterator[tuple[Target, Outcome]]:
    """Apply all targets in order and yield the outcome of each. If a dry run of any target fails, nothing is changed.

    Fields of the KubeRay operator are taken over, those of other managers only with `force_conflicts`. Targets in a
    namespace that the same call creates are applied without a dry run: the namespace does not exist yet.
    Raises ClusterError. One error lists all conflicts.
    """
    before = {target: _existing(api, target) for target in targets}
    assert len(before) == len(targets), "a target is listed twice"
    new = {target.document.name for target in targets if target.resource == NAMESPACES and before[target] is None}
    tried = [target for target in targets if not (target.resource.namespaced and target.namespace in new)]
    conflicts: list[str] = []
    forced = set(targets) if force_conflicts else set()
    for target in tried:
        try:
            _patch(api, target, target in forced, dry_run=True)
        except Conflict as error:
            others = [(field, message) for field, message in error.owned if not message.startswith(_OPERATOR)]
            conflicts += [f"{target}: {field}: {message}" for field, message in others]
            forced.add(target)  # for the operator's fields; with other conflicts, nothing is applied
        except NotFound as error:  # apply creates a missing object, but not its namespace
            hint = f"kubectl create namespace {target.namespace}"
            raise ClusterError(f"{target} cannot be created: {error.detail}. Create the namespace: {hint}") from None
    if conflicts:
        raise ClusterError(
            "Other field managers own fields that the file sets (nothing was changed):\n  "
            + "\n  ".join(conflicts)
            + "\nRemove those fields from the file, or take them over with --force-conflicts."
        )
    for target in targets:
        old, now = before[target], _patch(api, target, target in forced, dry_run=False)
        assert now["metadata"].get("resourceVersion"), f"{target} has no version, so a change could not be seen"
        if old is None:
            yield target, "created"
        else:
            same = old["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]
            yield target, "unchanged" if same else "configured"


def _existing(api: Api, target: Target) -> Object | None:
    try:
        return api.get(Object, target.resource, target.document.name, target.namespace)
    except NotFound:
        return None


def _patch(api: Api, target: Target, force: bool, dry_run: bool) -> Object:
    body = cast(Mapping[str, object], target.document.body)
    return api.apply(target.resource, body, target.document.name, target.namespace, force, dry_run)
