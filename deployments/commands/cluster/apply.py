"""Server-side apply of a manifest's objects: everything is tried without effect first, then done."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from deployments.commands.cluster.api import Api, operator_missing
from deployments.commands.cluster.errors import BadManifest, ClusterError, Conflict, NotFound
from deployments.commands.cluster.manifest import Document
from deployments.commands.cluster.objects import Object
from deployments.commands.cluster.resources import NAMESPACES, RAY_SERVICES, Resource

Outcome = Literal["created", "configured", "unchanged"]


@dataclass(frozen=True, eq=False)  # one is itself only, whatever the bodies
class Target:
    """A document and where it goes."""

    document: Document
    resource: Resource
    namespace: str

    def __str__(self) -> str:
        return f"{self.document.kind} {self.document.name}"


def targets_of(api: Api, documents: list[Document], source: str, namespace_given: bool) -> list[Target]:
    """Where each document goes. Raises ClusterError: a kind the server does not have, another namespace than -n."""
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
            what = f"{document.kind} {document.name}"
            faults.append(f"{source}:{document.line}: {what} is for namespace {own}, not for {api.namespace}")
        else:
            targets.append(Target(document, resource, own or api.namespace))
    if faults:
        raise BadManifest("\n".join(faults))
    return targets


def apply(api: Api, targets: list[Target], force_conflicts: bool) -> Iterator[tuple[Target, Outcome]]:
    """Apply all, in order. Nothing is changed if the server refuses any of them in a dry run.

    Only what belongs into a namespace that these very targets create cannot be tried before.
    Raises ClusterError; Conflicts are explained, all of them at once.
    """
    before = {target: _existing(api, target) for target in targets}
    new = {target.document.name for target in targets if target.resource == NAMESPACES and before[target] is None}
    tried = [target for target in targets if not (target.resource.namespaced and target.namespace in new)]
    conflicts: list[str] = []
    for target in tried:
        try:
            _patch(api, target, force_conflicts, dry_run=True)
        except Conflict as error:
            conflicts += [f"{target}: {field}: {message}" for field, message in error.owned]
        except NotFound as error:  # an apply makes what is not there, except for the namespace
            hint = f"kubectl create namespace {target.namespace}"
            raise ClusterError(f"{target} cannot be made: {error.detail}. To make the namespace: {hint}") from None
    if conflicts:
        raise ClusterError(
            "Others manage fields that this would change (nothing was changed):\n  "
            + "\n  ".join(conflicts)
            + "\nLeave those fields out of the file, or take them over with --force-conflicts."
        )
    for target in targets:
        old, now = before[target], _patch(api, target, force_conflicts, dry_run=False)
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
