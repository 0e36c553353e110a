"""The release of a RayService that Helm installed, from the labels of Helm's records. Their content is not read."""

from dataclasses import dataclass

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ApiError
from deployments.commands.cluster.objects import Object
from deployments.commands.cluster.resources import SECRETS

_RELEASE = "meta.helm.sh/release-name"


@dataclass(frozen=True)
class Release:
    """A release by its newest record. status: deployed, failed, pending-upgrade, ..."""

    name: str
    revision: int
    status: str

    def __post_init__(self) -> None:
        assert self.revision >= 1, f"revisions count from 1, but {self.name} has {self.revision}"


def release_name(service: Object) -> str | None:
    """Return the name of the release that the RayService belongs to, or None if Helm did not install it."""
    return (service["metadata"].get("annotations") or {}).get(_RELEASE)


def release_of(api: Api, service: Object) -> Release | None:
    """Return the release of the RayService; None also if the user may not list Secrets. Raises ClusterError."""
    name = release_name(service)
    if name is None:
        return None
    try:
        records = api.find_metadata(SECRETS, labels=f"owner=helm,name={name}")
    except ApiError as error:
        if error.status == 403:
            return None
        raise
    found = [record["metadata"]["labels"] for record in records]
    releases = [Release(name, int(labels["version"]), labels["status"]) for labels in found]
    return max(releases, key=lambda release: release.revision, default=None)
