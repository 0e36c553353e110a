"""The values of pods: their resources and the open fields that all pods of the chart share."""

from typing import Annotated

from pydantic import Field

from deployments.settings import PositiveInt, Settings
from k8s.render.value_types import Count, Fragment, NoName, Quantity, Variables

# The names that Kubernetes knows without a domain, and those of devices: nvidia.com/gpu, nvidia.com/mig-1g.10gb, ...
ResourceName = Annotated[
    str,
    Field(
        pattern=r"^(cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMG]i|[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*)$"
    ),
]
# The resources of one pod. Ray counts the CPUs and the memory, so both are needed.
Amounts = Annotated[dict[ResourceName, Quantity], Field(json_schema_extra={"required": ["cpu", "memory"]})]


class Resources(Settings):
    requests: Amounts
    """The amounts that the pod reserves on its node."""
    limits: Amounts
    """The amounts that the pod may use at most. Ray places replicas by them."""


class WorkerResources(Resources):
    claims: list[Fragment] = Field([])
    """Entries of `resourceClaims` that the container of Ray uses."""


class Placement(Settings):
    """The fields of a pod that choose its node."""

    nodeSelector: dict[str, str] = Field({})
    """Labels of the nodes that may run the pods."""
    tolerations: list[Fragment] = Field([])
    """Taints of nodes that the pods tolerate."""
    affinity: Fragment = Field({})
    """Rules about nodes and other pods."""
    priorityClassName: NoName = ""
    """The priority of the pods."""
    schedulerName: NoName = ""
    """The scheduler of the pods. Default: that of the cluster."""


class Pod(Placement):
    """The fields of a pod that the chart passes on: of the head, of each group of workers, and of `helm test`."""

    podAnnotations: dict[str, str] = Field({})
    """Annotations of the pods."""
    podLabels: dict[str, str] = Field({})
    """Labels of the pods, besides those of the chart and of KubeRay."""
    runtimeClassName: NoName = ""
    """The runtime of the containers: `nvidia` for a group with GPUs, if NVIDIA's runtime is not the default one."""
    env: Variables = Field({})
    """Environment of the main container. It takes precedence over the chart's variables."""
    initContainers: list[Fragment] = Field([])
    """Containers that run before those of the chart."""
    extraVolumes: list[Fragment] = Field([])
    """Volumes besides those of the chart."""
    extraVolumeMounts: list[Fragment] = Field([])
    """Mounts of these volumes in the main container."""


class WorkerGroup(Pod):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
    """The name of the group in the RayService, and the component label of its pods."""
    minReplicas: Count
    """The lowest number of pods. A pod without a replica never becomes ready, so each of these must get one."""
    maxReplicas: PositiveInt
    """The highest number of pods. The autoscaler chooses one between the two."""
    resources: WorkerResources
    """The resources of one pod."""
    resourceClaims: list[Fragment] = Field([])
    """Claims of devices (DRA). Ray cannot count their GPUs, so `rayResources` must: `{GPU: "1"}`."""
    rayResources: dict[str, Quantity] = Field({})
    """Custom resources of Ray. A deployment in `app` that requests one of them is placed in this group."""
    mps: bool = False
    """Start NVIDIA's MPS daemon in the pod, for replicas that share its GPU (README.md)."""
    withoutModels: bool = False
    """Download no models into the pod. An ingress needs none."""
