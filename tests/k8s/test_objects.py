"""Every object of every preset is checked against the schemas of Kubernetes and of the custom resources."""

import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from k8s.render.__main__ import CHART, helm_template, preset
from tests.k8s.charts import (
    ALL,
    COMBINATIONS,
    PRESETS,
    Combination,
    Object,
    at,
    items,
    mapping,
    ray_service,
    render,
    templates,
)
from tests.kuberay import NOT_HERE, RESTATED, ray_service_definition

KUBERNETES = ("1.29", "1.37")


@pytest.mark.parametrize("name", [None, *PRESETS])
def test_helm_lint_is_strict_and_content(helm: Path, name: str | None) -> None:
    values = [] if name is None else ["-f", str(preset(name))]
    said = subprocess.run([str(helm), "lint", "--strict", str(CHART), *values], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@ALL
def test_objects_are_what_kubernetes_knows(helm: Path, combination: Combination) -> None:
    for one in render(combination, helm):
        for checked in as_kubernetes_sees(one, combination, helm):
            for version in KUBERNETES:
                kubernetes_validate.validate(checked, version, strict=True)


def as_kubernetes_sees(one: Object, combination: Combination, helm: Path) -> list[Object]:
    """Return the object itself, or the pods inside a custom resource."""
    if one["kind"] not in RESTATED:
        return [one]
    if one["kind"] != "RayService":
        return []
    return [
        {"apiVersion": "v1", "kind": "Pod", **template} for template in templates(render(combination, helm)).values()
    ]


@ALL
def test_custom_resources_have_no_field_but_known_ones(helm: Path, combination: Combination) -> None:
    for one in render(combination, helm):
        if one["kind"] in RESTATED:
            jsonschema.validate(one["spec"], RESTATED[str(one["kind"])])


def kuberays_spec() -> dict[str, object]:
    """Return the schema of a RayService's spec. Skips the test if the definition is not available."""
    if (definition := ray_service_definition()) is None:
        pytest.skip(NOT_HERE)
    return mapping(definition, "properties", "spec")


def test_every_ray_service_is_what_kuberay_defines(helm: Path) -> None:
    validator = jsonschema.Draft202012Validator(kuberays_spec())
    for combination in COMBINATIONS:
        validator.validate(ray_service(render(combination, helm))["spec"])


def test_kuberays_definition_refuses_what_it_does_not_know(helm: Path) -> None:
    spec = mapping(ray_service(render(COMBINATIONS[0], helm)), "spec")
    cluster = mapping(spec, "rayClusterConfig")
    groups = [{**group, "minReplica": 1} for group in items(cluster, "workerGroupSpecs")]
    misspelt = {**spec, "rayClusterConfig": {**cluster, "workerGroupSpecs": groups}}
    with pytest.raises(jsonschema.ValidationError, match="minReplica'"):
        jsonschema.validate(misspelt, kuberays_spec())


def test_the_restatement_is_a_part_of_kuberays_definition() -> None:
    compare(RESTATED["RayService"], kuberays_spec(), "spec")


def compare(ours: object, theirs: object, path: str) -> None:
    """Check that every field of `ours` is a field of `theirs` with the same type."""
    assert isinstance(ours, dict), path
    assert isinstance(theirs, dict), path
    assert ours["type"] == theirs["type"], path
    assert set(ours.get("required", ())) == set(theirs.get("required", ())) & set(ours.get("properties", ())), path
    for name, part in ours.get("properties", {}).items():
        assert name in theirs["properties"], f"{path}.{name}"
        compare(part, theirs["properties"][name], f"{path}.{name}")
    if "items" in ours:
        compare(ours["items"], theirs["items"], f"{path}[]")


def test_a_schema_of_kubernetes_refuses_what_it_does_not_know(helm: Path) -> None:
    (account,) = [one for one in render(COMBINATIONS[0], helm) if one["kind"] == "ServiceAccount"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**account, "automountServiceAccountTokens": False}, KUBERNETES[0], strict=True)


@pytest.mark.parametrize("name", ["1234", "true"])
def test_names_that_yaml_would_read_as_something_else_stay_names(helm: Path, name: str) -> None:
    everything = ("-f", str(Path(__file__).parent / "everything.yaml"), "--namespace", name)
    said = helm_template(("h100", "three-families"), *everything, release=name, helm=helm)
    assert said.returncode == 0, said.stderr
    for one in yaml.safe_load_all(said.stdout):
        assert at(one, "metadata", "namespace") == name
        assert at(one, "metadata", "labels", "app.kubernetes.io/instance") == name
