"""The parts of Kubernetes objects that `qwen-tts cluster` reads, as JSON has them. Every key may be absent.

Kubernetes API reference v1.35; KubeRay `ray.io/v1` (ray-operator/apis/ray/v1). Times are RFC 3339 strings.
"""

from typing import TypedDict


class OwnerReference(TypedDict, total=False):
    kind: str
    name: str


class Metadata(TypedDict, total=False):
    name: str
    namespace: str
    uid: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generation: int
    resourceVersion: str
    creationTimestamp: str
    deletionTimestamp: str
    finalizers: list[str]
    ownerReferences: list[OwnerReference]


class Object(TypedDict, total=False):
    """Any object. Its other fields are passed on unread."""

    apiVersion: str
    kind: str
    metadata: Metadata


class Condition(TypedDict, total=False):
    type: str
    status: str  # True, False, Unknown
    reason: str
    message: str


class DeploymentStatus(TypedDict, total=False):
    status: str
    message: str


class ApplicationStatus(TypedDict, total=False):
    status: str
    message: str
    serveDeploymentStatuses: dict[str, DeploymentStatus]


class ServiceStatus(TypedDict, total=False):
    """The status of one of the two clusters of a RayService."""

    rayClusterName: str
    applicationStatuses: dict[str, ApplicationStatus]


class RayServiceStatus(TypedDict, total=False):
    conditions: list[Condition]
    activeServiceStatus: ServiceStatus
    pendingServiceStatus: ServiceStatus
    numServeEndpoints: int
    observedGeneration: int


class Toleration(TypedDict, total=False):
    key: str


class GroupPodSpec(TypedDict, total=False):
    tolerations: list[Toleration]


class PodTemplate(TypedDict, total=False):
    spec: GroupPodSpec


class HeadGroup(TypedDict, total=False):
    template: PodTemplate


class WorkerGroup(HeadGroup, total=False):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int
    numOfHosts: int


class RayClusterSpec(TypedDict, total=False):
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class UpgradeStrategy(TypedDict, total=False):
    type: str


class RayServiceSpec(TypedDict, total=False):
    serveConfigV2: str
    rayClusterConfig: RayClusterSpec
    upgradeStrategy: UpgradeStrategy
    suspend: bool


class RayService(Object, total=False):
    spec: RayServiceSpec
    status: RayServiceStatus


class RayCluster(Object, total=False):
    spec: RayClusterSpec


class Waiting(TypedDict, total=False):
    reason: str
    message: str


class Terminated(TypedDict, total=False):
    exitCode: int
    reason: str


class Running(TypedDict, total=False):
    startedAt: str


class ContainerState(TypedDict, total=False):
    waiting: Waiting
    running: Running
    terminated: Terminated


class ContainerStatus(TypedDict, total=False):
    name: str
    image: str
    restartCount: int
    state: ContainerState
    lastState: ContainerState


class PodStatus(TypedDict, total=False):
    phase: str
    reason: str
    message: str
    conditions: list[Condition]
    containerStatuses: list[ContainerStatus]
    initContainerStatuses: list[ContainerStatus]


class Container(TypedDict, total=False):
    name: str
    image: str


class Claim(TypedDict, total=False):
    claimName: str


class Volume(TypedDict, total=False):
    persistentVolumeClaim: Claim


class PodSpec(TypedDict, total=False):
    containers: list[Container]
    volumes: list[Volume]


class Pod(Object, total=False):
    spec: PodSpec
    status: PodStatus


class JobStatus(TypedDict, total=False):
    conditions: list[Condition]


class Job(Object, total=False):
    status: JobStatus


class Series(TypedDict, total=False):
    lastObservedTime: str


class InvolvedObject(TypedDict, total=False):
    kind: str
    name: str


class Event(Object, total=False):
    involvedObject: InvolvedObject
    type: str  # Normal, Warning
    reason: str
    message: str
    series: Series
    lastTimestamp: str
    eventTime: str
