"""The replicas of a preset can be placed on the pods of the preset, and fit into their memory.

The memory comes from arithmetic (k8s/render/memory.py), as in the chart's README.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.settings import AppArgs, ReplicaArgs
from k8s.render.__main__ import CHART
from k8s.render.memory import GPU_BYTES, decoder_memory, table, talker_memory
from tests.k8s.charts import HARDWARE, Combination, app_settings, items, mapping, ray_service, render
from tests.qwen_tts.released_tensors import model_tensors

GPUS = HARDWARE[1:]
ONE_MODEL = [Combination(("cpu-demo",)), *(Combination((gpu, "one-model")) for gpu in GPUS)]
THREE_FAMILIES = [Combination((gpu, "three-families")) for gpu in GPUS]

Amounts = dict[str, float]


def replicas(args: AppArgs, *, most: bool) -> list[Amounts]:
    """Return the requests of every replica, with the smallest or the largest number of replicas."""

    def of(section: ReplicaArgs) -> Iterator[Amounts]:
        scaling = section.autoscaling
        count = section.num_replicas if scaling is None else scaling.max_replicas if most else scaling.min_replicas
        for _ in range(count):
            yield amounts(section)

    return [one for section in sections(args) for one in of(section)]


def sections(args: AppArgs) -> list[ReplicaArgs]:
    talkers = [args.talker_of(model) for model in args.models]
    return [args.codec_decoder, args.codec_encoder, args.ingress, *talkers]


def amounts(section: ReplicaArgs) -> Amounts:
    return {"CPU": section.num_cpus, "GPU": section.num_gpus, **section.resources}


def nodes(combination: Combination, helm: Path) -> list[Amounts]:
    """Return what every worker pod offers, in Ray's terms, with the largest number of pods."""
    found: list[Amounts] = []
    for group in items(ray_service(render(combination, helm)), "spec", "rayClusterConfig", "workerGroupSpecs"):
        limits = mapping(items(group, "template", "spec", "containers")[0], "resources", "limits")
        custom = mapping(group, "resources") if "resources" in group else {}
        offered = {
            "CPU": float(math.ceil(float(str(limits["cpu"])))),
            "GPU": float(str(limits.get("nvidia.com/gpu", 0))),
            **{name: float(str(amount)) for name, amount in custom.items()},
        }
        found += [dict(offered) for _ in range(int(str(group["maxReplicas"])))]
    return found


def place(wanted: list[Amounts], offered: list[Amounts]) -> None:
    """Place the replicas: first fit, the largest share of a GPU first. Fails if a replica finds no place."""
    for replica in sorted(wanted, key=lambda amounts: -amounts["GPU"]):
        fitting = (node for node in offered if all(node.get(name, 0) >= need for name, need in replica.items()))
        node = next(fitting, None)
        assert node is not None, f"no pod has room for {replica}: {offered}"
        for name, need in replica.items():
            node[name] = round(node.get(name, 0) - need, 6)


@pytest.mark.parametrize("combination", ONE_MODEL, ids=str)
def test_all_replicas_of_one_model_find_pods(helm: Path, combination: Combination) -> None:
    place(replicas(app_settings(combination), most=True), nodes(combination, helm))


@pytest.mark.parametrize("combination", THREE_FAMILIES, ids=str)
def test_three_families_find_pods(helm: Path, combination: Combination) -> None:
    place(replicas(app_settings(combination), most=False), nodes(combination, helm))


@pytest.mark.parametrize("combination", [*ONE_MODEL, *THREE_FAMILIES], ids=str)
def test_an_update_finds_room_for_the_replicas_that_it_starts_first(helm: Path, combination: Combination) -> None:
    """Serve waits without end for room. When one replica has been replaced, there is room for the next one."""
    args = app_settings(combination)
    surging = [section for section in sections(args) if section.most_surge_percent]
    assert args.ingress in surging
    for section in surging:
        place([*replicas(args, most=False), amounts(section)], nodes(combination, helm))


def test_what_asks_for_too_much_finds_none(helm: Path) -> None:
    demo = ONE_MODEL[0]
    with pytest.raises(AssertionError, match="no pod has room"):
        place([{"CPU": 1, "GPU": 0.1}], nodes(demo, helm))
    with pytest.raises(AssertionError, match="no pod has room"):
        place([{"CPU": 1, "GPU": 0, "talker": 0.001}], nodes(demo, helm))


@pytest.mark.parametrize("gpu", GPUS)
def test_a_share_of_a_gpu_holds_what_runs_in_it(helm: Path, gpu: str) -> None:
    args = app_settings(Combination((gpu, "three-families")))
    talker = talker_memory("1.7B", args.talker.positions).total(args.talker.slots)
    assert talker <= args.talker.num_gpus * GPU_BYTES[gpu]
    decoder = decoder_memory().total(args.codec_decoder.slots, args.codec_decoder.max_batch)
    assert decoder <= args.codec_decoder.num_gpus * GPU_BYTES[gpu]


def test_decoders_have_a_slot_for_every_stream_of_the_talkers_they_start_with(helm: Path) -> None:
    for gpu in GPUS:
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


def test_the_readme_has_the_table() -> None:
    assert table() in (CHART / "README.md").read_text(encoding="utf-8"), "python -m k8s.render.memory"
