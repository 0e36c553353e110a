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


class WorkerGroup(TypedDict, total=False):
    groupName: str
    replicas: int
    numOfHosts: int


class RayClusterSpec(TypedDict, total=False):
    workerGroupSpecs: list[WorkerGroup]


class UpgradeStrategy(TypedDict, total=False):
    type: str


class ServeService(TypedDict, total=False):
    metadata: Metadata


class RayServiceSpec(TypedDict, total=False):
    serveConfigV2: str
    rayClusterConfig: RayClusterSpec
    serveService: ServeService
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


class ContainerState(TypedDict, total=False):
    waiting: Waiting
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


class Port(TypedDict, total=False):
    name: str
    port: int


class LoadBalancerAddress(TypedDict, total=False):
    ip: str
    hostname: str


class LoadBalancer(TypedDict, total=False):
    ingress: list[LoadBalancerAddress]


class LoadBalancerStatus(TypedDict, total=False):
    loadBalancer: LoadBalancer


class ServiceSpec(TypedDict, total=False):
    type: str
    ports: list[Port]


class Service(Object, total=False):
    spec: ServiceSpec
    status: LoadBalancerStatus


class BackendService(TypedDict, total=False):
    name: str


class IngressBackend(TypedDict, total=False):
    service: BackendService


class IngressPath(TypedDict, total=False):
    path: str
    backend: IngressBackend


class IngressHttp(TypedDict, total=False):
    paths: list[IngressPath]


class IngressRule(TypedDict, total=False):
    host: str
    http: IngressHttp


class IngressTls(TypedDict, total=False):
    hosts: list[str]


class IngressSpec(TypedDict, total=False):
    rules: list[IngressRule]
    tls: list[IngressTls]
    defaultBackend: IngressBackend


class Ingress(Object, total=False):
    spec: IngressSpec
    status: LoadBalancerStatus


class ParentRef(TypedDict, total=False):
    name: str
    namespace: str
    sectionName: str


class RouteRule(TypedDict, total=False):
    backendRefs: list[BackendService]


class RouteSpec(TypedDict, total=False):
    hostnames: list[str]
    parentRefs: list[ParentRef]
    rules: list[RouteRule]


class HttpRoute(Object, total=False):
    spec: RouteSpec


class Listener(TypedDict, total=False):
    name: str
    protocol: str
    port: int


class GatewaySpec(TypedDict, total=False):
    listeners: list[Listener]


class GatewayAddress(TypedDict, total=False):
    value: str


class GatewayStatus(TypedDict, total=False):
    addresses: list[GatewayAddress]


class Gateway(Object, total=False):
    spec: GatewaySpec
    status: GatewayStatus
