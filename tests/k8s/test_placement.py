"""Every replica of a preset gets a place, every pod gets a replica, and what shares a pod or a GPU fits into it.

The memory of GPUs comes from arithmetic (k8s/render/memory.py), as in the chart's README.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from deployments.ingress import ANSWERS
from deployments.settings import TorchReplicaArgs
from k8s.render.__main__ import CHART
from k8s.render.memory import table, talker_memory
from tests.k8s.charts import HARDWARE, MODELS, Combination, app_settings
from tests.k8s.placing import (
    Choose,
    Group,
    NeverPlacedError,
    Pod,
    Replica,
    count,
    deployments,
    emptiest,
    fullest,
    groups,
    place,
    replica,
    replicas,
)
from tests.qwen_tts.released_tensors import model_tensors

README = (CHART / "README.md").read_text(encoding="utf-8")
GPUS = HARDWARE[1:]
DEMO = Combination(("cpu-demo",))
PLAIN = [Combination((gpu, models)) for gpu in GPUS for models in MODELS]
REDUNDANT = [Combination((*one.presets, "redundant")) for one in PLAIN]
EVERY = pytest.mark.parametrize("combination", [DEMO, *PLAIN, *REDUNDANT], ids=str)
EVERY_WITH_GPU = pytest.mark.parametrize("combination", [*PLAIN, *REDUNDANT], ids=str)


def orders(wanted: list[Replica]) -> Iterator[list[Replica]]:
    """Yield the replicas in several orders: as they are, backwards, and with each deployment first."""
    yield wanted
    yield wanted[::-1]
    for name in {one.deployment for one in wanted}:
        yield sorted(wanted, key=lambda one: one.deployment != name)


def placed(combination: Combination, helm: Path, wanted: list[Replica]) -> Iterator[list[Pod]]:
    """Yield the pods after each course of events that `place` imitates. Raises NeverPlacedError."""
    available = groups(combination, helm)
    choices: tuple[Choose, ...] = (fullest, emptiest)
    for order, choose, late in itertools.product(orders(wanted), choices, (False, True)):
        yield place(order, available, choose, late=late)


@EVERY
@pytest.mark.parametrize("most", [False, True])
def test_every_replica_gets_a_place_in_any_order(helm: Path, combination: Combination, most: bool) -> None:
    """Serve waits without end for a place. So it must never want more than the groups may have."""
    wanted = replicas(app_settings(combination), most=most)
    for pods in placed(combination, helm, wanted):
        assert sum(len(pod.replicas) for pod in pods) == len(wanted)


@EVERY
def test_every_pod_gets_a_replica(helm: Path, combination: Combination) -> None:
    """A pod without one has no proxy of Serve, and is never ready. The autoscaler removes no pods below the minimum."""
    for pods in placed(combination, helm, replicas(app_settings(combination), most=False)):
        assert [pod.group.name for pod in pods if not pod.replicas] == []


@EVERY
@pytest.mark.parametrize("most", [False, True])
def test_an_update_finds_room_for_the_replicas_that_it_starts_first(
    helm: Path, combination: Combination, most: bool
) -> None:
    """When one replica has been replaced, there is room for the next one."""
    args = app_settings(combination)
    surging = {name: section for name, section in deployments(args).items() if section.most_surge_percent}
    assert "ingress" in surging
    for name, section in surging.items():
        for _ in placed(combination, helm, [*replicas(args, most=most), replica(name, section)]):
            pass


@EVERY_WITH_GPU
def test_the_loss_of_a_pod_leaves_an_ingress_and_may_leave_everything(helm: Path, combination: Combination) -> None:
    """The preset `redundant` has every deployment on two pods. The others have one pod per GPU deployment."""
    args = app_settings(combination)
    kept = set(deployments(args)) if "redundant" in combination.presets else {"ingress"}
    for pods in placed(combination, helm, replicas(args, most=False)):
        for lost in pods:
            left = {one.deployment for pod in pods if pod is not lost for one in pod.replicas}
            assert kept <= left, f"no {kept - left} without a pod of {lost.group.name}"


@EVERY
def test_rays_autoscaler_brings_the_pods(helm: Path, combination: Combination) -> None:
    """Ray's own code decides here, for all replicas at their largest number."""
    available = groups(combination, helm)
    types = {
        one.name: NodeTypeConfig(
            name=one.name, min_worker_nodes=one.least, max_worker_nodes=one.most, resources=one.offers
        )
        for one in available
    }
    wanted = [ResourceRequestUtil.make(one.needs) for one in replicas(app_settings(combination), most=True)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        resource_requests=ResourceRequestUtil.group_by_count(wanted),
    )
    reply = ResourceDemandScheduler(None).schedule(request)
    assert list(reply.infeasible_resource_requests) == []
    started = Counter({launch.instance_type: launch.count for launch in reply.to_launch})
    assert all(one.least <= started[one.name] <= one.most for one in available)


def test_what_asks_for_too_much_finds_no_place(helm: Path) -> None:
    for needs in ({"CPU": 1.0, "GPU": 0.1}, {"CPU": 1.0, "talker": 0.001}, {"CPU": 4.5}):
        with pytest.raises(NeverPlacedError, match="no pod has room"):
            place([Replica("a", needs)], groups(DEMO, helm), fullest, late=False)


def test_a_group_of_two_pods_for_one_replica_has_an_empty_pod() -> None:
    two = Group("a", {"CPU": 2.0}, least=2, most=2)
    pods = place([Replica("b", {"CPU": 1.0})] * 2, [two], fullest, late=True)
    assert [len(pod.replicas) for pod in pods] == [2, 0]
    assert [len(pod.replicas) for pod in place([Replica("b", {"CPU": 1.5})] * 2, [two], fullest, late=True)] == [1, 1]


@EVERY_WITH_GPU
def test_threads_of_a_pod_are_no_more_than_its_cpus(helm: Path, combination: Combination) -> None:
    """A replica uses half of the CPUs of its pod, unless its settings say otherwise."""
    args = app_settings(combination)
    computing = {name: one for name, one in deployments(args).items() if isinstance(one, TorchReplicaArgs)}
    for pod in place(replicas(args, most=True), groups(combination, helm), fullest, late=True):
        cpus = pod.group.offers["CPU"]
        with_gpu = [computing[one.deployment] for one in pod.replicas if one.needs["GPU"]]
        encoders = [computing[one.deployment] for one in pod.replicas if one.deployment == "codec-encoder"]
        for together in (with_gpu, encoders):  # encoders compute rarely
            assert sum(one.threads or cpus // 2 for one in together) <= cpus


@EVERY
def test_decoders_and_ingresses_are_enough_for_all_talkers(combination: Combination) -> None:
    args = app_settings(combination)
    streams = sum(count(args.talker_of(model), most=True) * args.talker_of(model).slots for model in args.models)
    assert count(args.codec_decoder, most=True) * args.codec_decoder.slots >= streams
    assert count(args.ingress, most=True) * ANSWERS >= streams


@pytest.mark.parametrize("gpu", GPUS)
def test_decoders_have_a_slot_for_every_stream_of_the_talkers_they_start_with(gpu: str) -> None:
    args = app_settings(Combination((gpu, "one-model")))
    assert args.codec_decoder.slots >= args.talker.slots


def test_key_value_rows_are_what_the_dimensions_say() -> None:
    """A position has 28 layers of 8 heads of 128 for keys and values, and a row of text of 2048, in 16 bits."""
    assert talker_memory("1.7B", positions=1).per_slot == 2 * (28 * 2 * 8 * 128 + 2048)
    assert talker_memory("1.7B", positions=10).per_slot == 10 * talker_memory("1.7B", positions=1).per_slot
    assert talker_memory("1.7B", 1, "float32").weights == 2 * talker_memory("1.7B", 1).weights


@pytest.mark.parametrize(("size", "hidden", "intermediate"), [("0.6B", 1024, 3072), ("1.7B", 2048, 6144)])
def test_weights_are_those_of_the_released_files(size: str, hidden: int, intermediate: int) -> None:
    released = model_tensors(hidden, intermediate, speaker_encoder=True)
    assert talker_memory(size, 1).weights == 2 * sum(math.prod(shape) for shape in released.values())


@pytest.mark.parametrize("gpu", GPUS)
def test_the_readme_has_the_numbers_of_gpus(helm: Path, gpu: str) -> None:
    def gpus(*presets: str, most: bool = False) -> float:
        combination = Combination((gpu, *presets))
        pods = place(replicas(app_settings(combination), most=most), groups(combination, helm), fullest, late=False)
        return sum(pod.group.offers["GPU"] for pod in pods)

    least, of_three = gpus("one-model"), gpus("three-families")
    most = gpus("three-families", most=True)
    wanted = f"| {least:.0f} GPU{'s' if least > 1 else ''} · {of_three:.0f} | {most:.0f} GPUs |"
    (row,) = (line for line in README.splitlines() if re.match(rf"\| [^|]*`{gpu}`.* GPUs \|$", line))
    assert wanted in row
    assert gpus("one-model", "redundant") == (2 if gpu in ("l4", "a10") else 4)
    assert gpus("three-families", "redundant") == (6 if gpu in ("l4", "a10") else 8)


def test_the_readme_has_the_table() -> None:
    assert table() in README, "python -m k8s.render.memory"
