"""A RayService with its clusters and pods at one moment."""

from dataclasses import dataclass, field

from deployments.commands.cluster.api import Api, operator_missing
from deployments.commands.cluster.errors import ApiError, ClusterError, NotFound
from deployments.commands.cluster.helm import Release, release_of
from deployments.commands.cluster.objects import (
    ApplicationStatus,
    Condition,
    Event,
    Job,
    Object,
    Pod,
    RayCluster,
    RayService,
    RayServiceStatus,
    ServiceStatus,
)
from deployments.commands.cluster.resources import EVENTS, JOBS, NAMESPACES, PODS, RAY_CLUSTERS, RAY_SERVICES

HEAD = "head"
CLUSTER, _GROUP, _NODE_TYPE = "ray.io/cluster", "ray.io/group", "ray.io/node-type"
_RELEASE, _COMPONENT, _MODEL_CACHE = "app.kubernetes.io/instance", "app.kubernetes.io/component", "model-cache"


@dataclass(frozen=True)
class GroupPods:
    """The pods of one group of one cluster. desired: None while the RayCluster object does not exist."""

    cluster: str
    group: str
    ready: int
    desired: int | None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a RayService as the API server reports it.

    groups, pods: of both clusters; warnings: events about the RayService, its clusters and its pods; clusters: by name,
    those that exist; release: Helm's; downloads, job: the unfinished pods and the newest Job of the model cache.
    """

    service: RayService
    groups: list[GroupPods]
    pods: list[Pod]
    warnings: list[Event]
    clusters: dict[str, RayCluster] = field(default_factory=dict)
    release: Release | None = None
    downloads: list[Pod] = field(default_factory=list)
    job: Job | None = None

    @property
    def name(self) -> str:
        return self.service["metadata"]["name"]

    @property
    def status(self) -> RayServiceStatus:
        return self.service.get("status") or {}

    @property
    def active(self) -> str | None:
        return self._active_status.get("rayClusterName") or None

    @property
    def pending(self) -> str | None:
        return self._pending_status.get("rayClusterName") or None

    @property
    def is_observed(self) -> bool:
        """Whether the operator has acted on the specification that was last applied."""
        return self.status.get("observedGeneration", 0) >= self.service["metadata"]["generation"]

    @property
    def is_ready(self) -> bool:
        """Whether the last applied specification is served: traffic has moved, and every application runs."""
        applications = self.applications
        return (
            self.is_observed
            and self.condition("Ready").get("status") == "True"
            and self.pending is None
            and bool(applications)
            and all(application.get("status") == "RUNNING" for application in applications.values())
        )

    @property
    def applications(self) -> dict[str, ApplicationStatus]:
        """The applications of the pending cluster, which an upgrade waits for; without one, of the active cluster."""
        which = self._pending_status if self.pending else self._active_status
        return which.get("applicationStatuses") or {}

    def condition(self, kind: str) -> Condition:
        """Return the condition of type `kind`; empty if the operator has not set it."""
        for condition in self.status.get("conditions") or []:
            if condition["type"] == kind:
                return condition
        return {}

    @property
    def _active_status(self) -> ServiceStatus:
        return self.status.get("activeServiceStatus") or {}

    @property
    def _pending_status(self) -> ServiceStatus:
        return self.status.get("pendingServiceStatus") or {}


def group_of(pod: Pod) -> str:
    """Return `head`, the name of the worker group, or `model-cache`."""
    labels = pod["metadata"].get("labels", {})
    return HEAD if labels.get(_NODE_TYPE) == HEAD else labels.get(_GROUP) or labels.get(_COMPONENT, "")


def is_ready(pod: Pod) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def choose(api: Api, name: str | None) -> str:
    """Return `name`, or without it the name of the only RayService in the namespace. Raises ClusterError."""
    try:
        names = sorted(found["metadata"]["name"] for found in api.find(RayService, RAY_SERVICES))
    except NotFound:
        raise operator_missing(api.host) from None
    if name in names or (name is None and len(names) == 1):
        return name or names[0]
    if not names:
        try:
            api.get(Object, NAMESPACES, api.namespace)
        except NotFound:
            raise ClusterError(f"There is no namespace {api.namespace}") from None
        except ApiError:  # the user may lack the right to read namespaces
            pass
        raise ClusterError(f"There is no RayService in namespace {api.namespace}")
    has = f"namespace {api.namespace} has: {', '.join(names)}"
    raise ClusterError(
        f"Name one of the RayServices; {has}" if name is None else f"There is no RayService {name}; {has}"
    )


def read(api: Api, name: str) -> Snapshot:
    """Read the present state of a RayService. Raises NotFound, ClusterError."""
    service = api.get(RayService, RAY_SERVICES, name)
    release = release_of(api, service)
    bare = Snapshot(service, [], [], [])
    names = [cluster for cluster in dict.fromkeys((bare.active, bare.pending)) if cluster]
    if not names:
        return Snapshot(service, [], [], _warnings(api, {name}), release=release)
    clusters = {found["metadata"]["name"]: found for cluster in names for found in _cluster(api, cluster)}
    pods = api.find(Pod, PODS, labels=f"{CLUSTER} in ({','.join(names)})")
    groups = [group for cluster in names for group in _groups(cluster, clusters.get(cluster), pods)]
    assert sum(group.ready for group in groups) == sum(map(is_ready, pods)), "a ready pod is in no group, or in two"
    downloads, job = _model_cache(api, service)
    warnings = _warnings(api, {name, *names, *(pod["metadata"]["name"] for pod in [*pods, *downloads])})
    return Snapshot(service, groups, pods, warnings, clusters, release, downloads, job)


def _model_cache(api: Api, service: RayService) -> tuple[list[Pod], Job | None]:
    """Return the unfinished pods and the newest Job of the model cache; no Job also if the user may not list Jobs."""
    release = service["metadata"].get("labels", {}).get(_RELEASE)
    if release is None:
        return [], None
    labels = f"{_RELEASE}={release},{_COMPONENT}={_MODEL_CACHE}"
    found = api.find(Pod, PODS, labels)
    pods = [pod for pod in found if pod.get("status", {}).get("phase") != "Succeeded"]
    try:
        jobs = api.find(Job, JOBS, labels)
    except ApiError as error:
        if error.status == 403:
            return pods, None
        raise
    return pods, max(jobs, key=lambda job: job["metadata"]["creationTimestamp"], default=None)


def _cluster(api: Api, name: str) -> list[RayCluster]:
    try:
        return [api.get(RayCluster, RAY_CLUSTERS, name)]
    except NotFound:  # the RayCluster does not exist yet, or is already gone
        return []


def _groups(cluster: str, found: RayCluster | None, pods: list[Pod]) -> list[GroupPods]:
    desired: dict[str, int] = {}
    if found is not None:
        desired[HEAD] = 1
        for group in found.get("spec", {}).get("workerGroupSpecs") or []:
            desired[group["groupName"]] = group.get("replicas", 0) * group.get("numOfHosts", 1)
    own = [pod for pod in pods if pod["metadata"].get("labels", {}).get(CLUSTER) == cluster]
    names = dict.fromkeys([*desired, *map(group_of, own)])
    return [
        GroupPods(cluster, group, sum(is_ready(pod) for pod in own if group_of(pod) == group), desired.get(group))
        for group in names
    ]


def _warnings(api: Api, names: set[str]) -> list[Event]:
    """Return the warnings about objects of these names, oldest first."""
    events = api.find(Event, EVENTS, fields="type=Warning")
    return sorted((event for event in events if event.get("involvedObject", {}).get("name") in names), key=last_seen)


def last_seen(event: Event) -> str:
    """Return when an event was last seen (RFC 3339, UTC). The old and the new events API keep it in other fields."""
    return (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
