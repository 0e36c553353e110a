"""The README's example for Kueue makes a RayService that Kueue accepts."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from k8s.render.__main__ import CHART
from tests.documents import blocks
from tests.k8s.charts import (
    HARDWARE,
    Combination,
    Object,
    Refused,
    app_settings,
    items,
    mapping,
    of_kind,
    ray_service,
    render,
)
from tests.k8s.placing import emptiest, fullest, groups, place, replicas
from tests.kuberay import RESTATED

QUEUE = "kueue.x-k8s.io/queue-name"
# Kueue's limit of pod sets is 8, and one of them is the head.
MOST_GROUPS = 7
# Presets, and the numbers of pods that the README gives for them. Helm understands these keys.
THREE_PODS: Object = {"workerGroups[0].minReplicas": 3}
MORE_TALKERS_AND_AN_ENCODER: Object = {"workerGroups[0].minReplicas": 2, "workerGroups[3].minReplicas": 1}
EXAMPLES: list[tuple[tuple[str, ...], Object]] = [
    ((), {}),
    *[((gpu, "one-model"), Object()) for gpu in HARDWARE[1:]],
    *[((gpu, "three-families"), THREE_PODS) for gpu in ("l4", "a10")],
    *[((gpu, "three-families"), MORE_TALKERS_AND_AN_ENCODER) for gpu in ("l40s", "a100", "h100")],
]


def example() -> Object:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    found = [
        yaml.safe_load(block.code)
        for block in blocks(readme)
        if block.language == "yaml" and "rayServiceLabels" in block.code
    ]
    (values,) = found
    assert isinstance(values, dict)
    return values


def test_kueue_accepts_the_example(helm: Path) -> None:
    values = example()
    for presets, pods in EXAMPLES:
        objects = render(Combination(presets, json.dumps(values | pods)), helm)
        service = ray_service(objects)
        assert mapping(values, "rayServiceLabels").items() <= mapping(service, "metadata", "labels").items()
        jsonschema.validate(service["spec"], RESTATED["RayService"])
        cluster = mapping(service, "spec", "rayClusterConfig")
        assert cluster["enableInTreeAutoscaling"] is False, "Kueue's webhook refuses it"
        assert "autoscalerOptions" not in cluster
        groups = items(cluster, "workerGroupSpecs")
        assert len(groups) <= MOST_GROUPS
        assert all(group["replicas"] == group["minReplicas"] for group in groups)
        assert "suspend" not in mapping(service, "spec"), "the field is Kueue's"
        assert "suspend" not in cluster


def test_without_the_autoscaler_every_replica_has_a_place_and_every_pod_a_replica(helm: Path) -> None:
    for presets, pods in EXAMPLES:
        combination = Combination(presets, json.dumps(example() | pods))
        fixed = [replace(group, most=group.least) for group in groups(combination, helm)]
        for choose in (fullest, emptiest):
            placed = place(replicas(app_settings(combination), most=False), fixed, choose, late=choose is fullest)
            assert all(pod.replicas for pod in placed), presets


@pytest.mark.parametrize(
    ("presets", "pods", "named"),
    [
        (
            ("h100", "three-families"),
            {},
            "group talker has room for 2 of 3 replicas (talker: 0.5), set its minReplicas to 2",
        ),
        (
            ("h100", "three-families"),
            {"workerGroups[0].minReplicas": 2},
            "group encoder has room for 0 of 1 replicas (encoder: 0.5), set its minReplicas to 1",
        ),
        (
            ("l4", "three-families"),
            {},
            "group speech has room for 1 of 3 replicas (talker: 1), set its minReplicas to 3",
        ),
        (
            ("l40s", "one-model", "redundant"),
            {},
            "group talker has room for 1 of 2 replicas (talker: 1), set its minReplicas to 2",
        ),
    ],
)
def test_without_the_autoscaler_too_few_pods_are_refused(
    helm: Path, presets: tuple[str, ...], pods: Object, named: str
) -> None:
    with pytest.raises(Refused) as refused:
        render(Combination(presets, json.dumps(example() | pods)), helm)
    assert named in str(refused.value)


def test_the_readme_names_the_pods_of_the_examples() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Queues: Kueue")[2].partition("\n## ")[0]
    section = " ".join(section.split())
    for _, pods in EXAMPLES:
        assert " ".join(f"--set {key}={value}" for key, value in pods.items()) in section


def test_other_objects_are_in_no_queue(helm: Path) -> None:
    objects = render(Combination(options=json.dumps(example())), helm)
    for kind in {str(one["kind"]) for one in objects} - {"RayService"}:
        for one in of_kind(objects, kind):
            assert QUEUE not in mapping(one, "metadata", "labels")
