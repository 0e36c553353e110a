"""The pods of every preset find nodes in every cloud that has its GPU, and only nodes with that GPU."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from k8s.render.__main__ import preset
from k8s.render.memory import GPU_BYTES, decoder_memory, talker_memory
from tests.k8s.charts import HARDWARE, MODELS, Combination, Object, app_settings, items, mapping, ray_service, render
from tests.k8s.nodes import CPU_NODES, DAEMONS_BYTES, DAEMONS_CPU, GPU_NODES, OTHER_NODES, NodeType, Room
from tests.k8s.placing import emptiest, fullest, groups, place, replicas

GPUS = HARDWARE[1:]
ALL_NODES = (*CPU_NODES, *GPU_NODES, *OTHER_NODES)
_UNITS = {"m": 0.001, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


class NeverScheduledError(Exception):
    """A pod waits for a node that cannot come."""


@dataclass(frozen=True)
class PodOfKubernetes:
    name: str
    spec: Object
    requests: Room

    def may_run_on(self, node: NodeType) -> bool:
        """Return whether the selector and the taint of GPU nodes allow the node, and whether the pod fits into it."""
        selector = mapping(self.spec, "nodeSelector") if "nodeSelector" in self.spec else {}
        tolerations = items(self.spec, "tolerations") if "tolerations" in self.spec else []
        tolerated = any(one["key"] == "nvidia.com/gpu" for one in tolerations)
        return selector.items() <= node.labels.items() and (tolerated or not node.gpus) and fits(self, node.room)


def fits(pod: PodOfKubernetes, room: Room) -> bool:
    wanted = pod.requests
    return wanted.cpus <= room.cpus and wanted.memory_bytes <= room.memory_bytes and wanted.gpus <= room.gpus


def quantity(text: object) -> float:
    for unit, factor in _UNITS.items():
        if str(text).endswith(unit):
            return float(str(text).removesuffix(unit)) * factor
    return float(str(text))


def requests(containers: Iterable[Object]) -> Room:
    wanted = [mapping(one, "resources", "requests") for one in containers]
    cpus, memory, gpus = (
        sum(quantity(one.get(key, 0)) for one in wanted) for key in ("cpu", "memory", "nvidia.com/gpu")
    )
    return Room(cpus, memory, int(gpus))


def pods_of(combination: Combination, helm: Path, *, most: bool) -> list[PodOfKubernetes]:
    """Return the head and the worker pods, with the smallest or the largest number of replicas."""
    cluster = mapping(ray_service(render(combination, helm)), "spec", "rayClusterConfig")
    specs = {str(one["groupName"]): mapping(one, "template", "spec") for one in items(cluster, "workerGroupSpecs")}
    specs["head"] = mapping(cluster, "headGroupSpec", "template", "spec")
    sidecars = {"head": [mapping(cluster, "autoscalerOptions")]}
    choose = emptiest if most else fullest  # the emptiest pods are the most pods
    workers = place(replicas(app_settings(combination), most=most), groups(combination, helm), choose, late=False)
    names = ["head", *(pod.group.name for pod in workers)]
    found = []
    for name in names:
        long = requests([*items(specs[name], "containers"), *sidecars.get(name, [])])
        first = requests(items(specs[name], "initContainers") if "initContainers" in specs[name] else [])
        both = Room(max(long.cpus, first.cpus), max(long.memory_bytes, first.memory_bytes), long.gpus)
        found.append(PodOfKubernetes(name, specs[name], both))
    return found


def schedule(pods: Iterable[PodOfKubernetes], types: Iterable[NodeType]) -> Counter[tuple[str, str]]:
    """Place pods on nodes, which are added as needed. Return the number of pods by (pod, node type)."""
    nodes: list[tuple[NodeType, Room]] = []
    known = list(types)
    where = Counter[tuple[str, str]]()
    for pod in pods:
        allowed = [one for one in known if pod.may_run_on(one)]
        if not allowed:
            raise NeverScheduledError(f"{pod.name} fits on no node: {pod.requests}")
        index = next((n for n, (one, room) in enumerate(nodes) if one in allowed and fits(pod, room)), len(nodes))
        if index == len(nodes):
            nodes.append((allowed[0], allowed[0].room))
        node, room = nodes[index]
        wanted = pod.requests
        left = Room(room.cpus - wanted.cpus, room.memory_bytes - wanted.memory_bytes, room.gpus - wanted.gpus)
        nodes[index] = (node, left)
        where[pod.name, node.name] += 1
    return where


def selectors(gpu: str) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = yaml.safe_load(preset(gpu).read_text(encoding="utf-8"))["gpuNodes"]["labels"]
    return labels


def on(cluster: str, *presets: str) -> Combination:
    return Combination(presets, json.dumps({"gpuNodes": {"cluster": cluster, "labels": selectors(presets[0])}}))


def clusters(node: NodeType) -> list[str]:
    """Return the values of gpuNodes.cluster that select the node."""
    return [key for key, labels in selectors(node.preset).items() if labels.items() <= node.labels.items()]


@pytest.mark.parametrize("gpu", GPUS)
def test_a_selector_chooses_nodes_with_the_gpu_of_its_preset_and_no_others(gpu: str) -> None:
    for cluster, labels in selectors(gpu).items():
        chosen = {node.preset for node in ALL_NODES if labels.items() <= node.labels.items()}
        assert chosen == {gpu}, cluster


@pytest.mark.parametrize("node", GPU_NODES, ids=lambda node: node.name)
@pytest.mark.parametrize("models", [*MODELS, "three-families+redundant"])
@pytest.mark.parametrize("most", [False, True])
def test_every_pod_gets_a_node_in_a_mixed_cluster(helm: Path, node: NodeType, models: str, most: bool) -> None:
    """The cluster has all node types of the cloud except other sizes with the same GPU. The wrong GPUs come first."""
    others = [one for one in ALL_NODES[::-1] if one.cloud == node.cloud and one.preset != node.preset]
    mixed = [*others, node]
    assert clusters(node), f"{node.preset} has no selector for {node.cloud}"
    for cluster in clusters(node):
        combination = on(cluster, node.preset, *models.split("+"))
        for pod, name in schedule(pods_of(combination, helm, most=most), mixed):
            with_gpu = pod in ("speech", "talker", "codec")
            assert name in ({node.name} if with_gpu else {one.name for one in CPU_NODES}), pod


def test_without_a_selector_a_pod_may_get_a_gpu_that_is_too_small(helm: Path) -> None:
    pods = pods_of(Combination(("l4", "one-model")), helm, most=False)
    where = schedule(pods, [one for one in ALL_NODES[::-1] if one.cloud == "eks"])
    assert ("speech", "g6.2xlarge") not in where


def test_a_pod_that_is_too_large_for_the_nodes_is_found(helm: Path) -> None:
    (small,) = (node for node in CPU_NODES if node.cloud == "gke")
    with pytest.raises(NeverScheduledError, match="speech fits on no node"):
        schedule(pods_of(Combination(("l4", "one-model")), helm, most=False), [small])


@pytest.mark.parametrize("node", GPU_NODES, ids=lambda node: node.name)
def test_a_share_of_a_gpu_holds_what_runs_in_it(node: NodeType) -> None:
    args = app_settings(Combination((node.preset, "three-families")))
    talker = talker_memory("1.7B", args.talker.positions).total(args.talker.slots)
    assert talker <= args.talker.num_gpus * node.gpu_bytes
    decoder = decoder_memory().total(args.codec_decoder.slots, args.codec_decoder.max_batch)
    assert decoder <= args.codec_decoder.num_gpus * node.gpu_bytes


@pytest.mark.parametrize("gpu", GPUS)
def test_the_memory_table_is_about_a_gpu_that_can_be_had(gpu: str) -> None:
    assert GPU_BYTES[gpu] in {node.gpu_bytes for node in GPU_NODES if node.preset == gpu}


@pytest.mark.parametrize(
    ("node", "cpus", "memory"),
    [
        # The example of GKE's page, a node with 4 CPUs and 16 GB.
        ("e2-standard-4", 3.92, "13498416Ki"),
        # Karpenter's table, for 8 CPUs, 32 GiB and 58 pods.
        ("g6.2xlarge", 7.91, "29317Mi"),
    ],
)
def test_the_formulas_give_the_examples_of_their_sources(node: str, cpus: float, memory: str) -> None:
    (found,) = (one for one in ALL_NODES if one.name == node)
    assert found.room.cpus + DAEMONS_CPU == pytest.approx(cpus)
    assert found.room.memory_bytes + DAEMONS_BYTES == pytest.approx(quantity(memory), rel=0.002)
