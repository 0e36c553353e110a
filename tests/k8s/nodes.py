"""Node types of clouds: what pods may request there, and the labels of the nodes.

The sizes come from the clouds' tables of machine types. What is left for pods comes from these pages (2026-12):

- GKE: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes
- EKS: https://karpenter.sh/docs/reference/instance-types/ (memory: 92.5 % of the machine's, less the reserved)
- AKS: https://learn.microsoft.com/azure/aks/node-resource-reservations
"""

from collections.abc import Callable
from dataclasses import dataclass

GIB = 2**30
_MIB = 2**20
GB = 1e9
# An estimate of what DaemonSets request on every node: network, proxy, logs, metrics, GPU plugin.
DAEMONS_CPU, DAEMONS_BYTES = 0.4, 1.0 * GIB


@dataclass(frozen=True)
class Room:
    cpus: float
    memory_bytes: float
    gpus: int


@dataclass(frozen=True)
class NodeType:
    cloud: str  # gke, eks or aks
    name: str
    cpus: int
    memory_gib: int
    gpus: int = 0
    preset: str = ""  # the hardware preset for its GPU
    gpu_bytes: float = 0  # what the driver leaves of one GPU
    gpu_labels: tuple[tuple[str, str], ...] = ()
    pods: int = 58  # of EKS: the limit of its network plugin for this type

    @property
    def labels(self) -> dict[str, str]:
        return {"node.kubernetes.io/instance-type": self.name, **dict(self.gpu_labels)}

    @property
    def room(self) -> Room:
        """What pods other than DaemonSets may request."""
        memory = _MEMORY[self.cloud](self)
        return Room(
            self.cpus - _stepwise(self.cpus, _CPUS[self.cloud]) - DAEMONS_CPU, memory - DAEMONS_BYTES, self.gpus
        )


Steps = tuple[tuple[float, float], ...]  # (width of the step, share)


def _stepwise(amount: float, steps: Steps) -> float:
    """Return the sum of the shares of the steps of `amount`."""
    total = 0.0
    for width, share in steps:
        total += min(amount, width) * share
        amount -= min(amount, width)
    return total


def _gke_bytes(node: NodeType) -> float:
    seen = 0.97 * node.memory_gib  # the kernel does not count all of it
    steps = ((4.0, 0.25), (4.0, 0.2), (8.0, 0.1), (112.0, 0.06), (_REST, 0.02))
    return (seen - _stepwise(seen, steps)) * GIB - 100 * _MIB


def _eks_bytes(node: NodeType) -> float:
    return 0.925 * node.memory_gib * GIB - (11 * node.pods + 255 + 100) * _MIB


def _aks_bytes(node: NodeType) -> float:
    """With 250 pods, the most of its network plugins."""
    seen = 0.97 * node.memory_gib * GIB
    return seen - min(0.25 * seen, (20 * 250 + 50) * 1e6) - 100 * _MIB


_MEMORY: dict[str, Callable[[NodeType], float]] = {"gke": _gke_bytes, "eks": _eks_bytes, "aks": _aks_bytes}
_REST = float("inf")
# Reserved CPUs: (cores of the step, share).
_GKE_CPUS: Steps = ((1, 0.06), (1, 0.01), (2, 0.005), (_REST, 0.0025))
_CPUS: dict[str, Steps] = {
    "gke": _GKE_CPUS,
    "eks": _GKE_CPUS,
    "aks": ((1, 0.06), (1, 0.04), (2, 0.02), (_REST, 0.01)),
}


def _gke(accelerator: str) -> tuple[tuple[str, str], ...]:
    return (("cloud.google.com/gke-accelerator", accelerator),)


def _eks(gpu: str, gpu_mib: int, product: str) -> tuple[tuple[str, str], ...]:
    """Return the labels of Karpenter, and that of NVIDIA's GPU feature discovery."""
    return (
        ("karpenter.k8s.aws/instance-gpu-name", gpu),
        ("karpenter.k8s.aws/instance-gpu-memory", str(gpu_mib)),
        ("nvidia.com/gpu.product", product),
    )


CPU_NODES = (
    NodeType("gke", "e2-standard-4", 4, 16),
    NodeType("eks", "m7i.xlarge", 4, 16),
    NodeType("aks", "Standard_D4s_v5", 4, 16),
)
# The smallest types with each GPU that have room for the preset's pods, and the large ones.
GPU_NODES = (
    NodeType("gke", "g2-standard-8", 8, 32, 1, "l4", 22.5 * GB, _gke("nvidia-l4")),
    NodeType("gke", "g2-standard-24", 24, 96, 2, "l4", 22.5 * GB, _gke("nvidia-l4")),
    NodeType("eks", "g6.2xlarge", 8, 32, 1, "l4", 22.5 * GB, _eks("l4", 22888, "NVIDIA-L4")),
    NodeType("eks", "g5.2xlarge", 8, 32, 1, "a10", 22.5 * GB, _eks("a10g", 24576, "NVIDIA-A10G")),
    NodeType("eks", "g5.12xlarge", 48, 192, 4, "a10", 22.5 * GB, _eks("a10g", 24576, "NVIDIA-A10G"), 234),
    NodeType("aks", "Standard_NV36ads_A10_v5", 36, 440, 1, "a10", 22.5 * GB),
    NodeType("eks", "g6e.2xlarge", 8, 64, 1, "l40s", 45 * GB, _eks("l40s", 45776, "NVIDIA-L40S")),
    NodeType("eks", "g6e.12xlarge", 48, 384, 4, "l40s", 45 * GB, _eks("l40s", 45776, "NVIDIA-L40S"), 234),
    NodeType("gke", "a2-highgpu-1g", 12, 85, 1, "l40s", 39.5 * GB, _gke("nvidia-tesla-a100")),
    NodeType("gke", "a2-highgpu-8g", 96, 680, 8, "l40s", 39.5 * GB, _gke("nvidia-tesla-a100")),
    NodeType("gke", "a2-ultragpu-1g", 12, 170, 1, "a100", 79 * GB, _gke("nvidia-a100-80gb")),
    NodeType("eks", "p4de.24xlarge", 96, 1152, 8, "a100", 79 * GB, _eks("a100", 81920, "NVIDIA-A100-SXM4-80GB"), 737),
    NodeType("aks", "Standard_NC24ads_A100_v4", 24, 220, 1, "a100", 79 * GB),
    NodeType("gke", "a3-highgpu-1g", 26, 234, 1, "h100", 79 * GB, _gke("nvidia-h100-80gb")),
    NodeType("gke", "a3-highgpu-8g", 208, 1872, 8, "h100", 79 * GB, _gke("nvidia-h100-80gb")),
    NodeType("eks", "p5.4xlarge", 16, 256, 1, "h100", 79 * GB, _eks("h100", 81920, "NVIDIA-H100-80GB-HBM3"), 234),
    NodeType("eks", "p5.48xlarge", 192, 2048, 8, "h100", 79 * GB, _eks("h100", 81920, "NVIDIA-H100-80GB-HBM3"), 100),
    NodeType("aks", "Standard_NC40ads_H100_v5", 40, 320, 1, "h100", 93 * GB),
)
# They have GPUs that no preset is for: too small for each preset, or with another price.
OTHER_NODES = (
    NodeType("gke", "n1-standard-8", 8, 30, 1, "", 15 * GB, _gke("nvidia-tesla-t4")),
    NodeType("eks", "g4dn.2xlarge", 8, 32, 1, "", 15 * GB, _eks("t4", 16384, "Tesla-T4"), 29),
    NodeType("eks", "p4d.24xlarge", 96, 1152, 8, "", 39.5 * GB, _eks("a100", 40960, "NVIDIA-A100-SXM4-40GB"), 737),
    NodeType("aks", "Standard_NC8as_T4_v3", 8, 56, 1, "", 15 * GB),
)
