"""The README's example for Kueue makes a RayService that Kueue accepts."""

import json
from pathlib import Path

import jsonschema
import yaml

from k8s.render.__main__ import CHART
from tests.documents import blocks
from tests.k8s.charts import Combination, Object, items, mapping, of_kind, ray_service, render
from tests.kuberay import RESTATED

QUEUE = "kueue.x-k8s.io/queue-name"
# Kueue's limit of pod sets is 8, and one of them is the head.
MOST_GROUPS = 7


def example() -> Object:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    found = [yaml.safe_load(block.code) for block in blocks(readme) if block.language == "yaml" and "rayServiceLabels" in block.code]
    (values,) = found
    assert isinstance(values, dict)
    return values


def test_kueue_accepts_the_example(helm: Path) -> None:
    values = example()
    for presets in ((), ("h100", "three-families")):
        objects = render(Combination(presets, json.dumps(values)), helm)
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


def test_other_objects_are_in_no_queue(helm: Path) -> None:
    objects = render(Combination(options=json.dumps(example())), helm)
    for kind in {str(one["kind"]) for one in objects} - {"RayService"}:
        for one in of_kind(objects, kind):
            assert QUEUE not in mapping(one, "metadata", "labels")
