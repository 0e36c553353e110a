"""KubeRay's RayService definition, where this machine has it, as a JSON schema that refuses unknown fields."""

import functools
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

VARIABLE = "QWEN_TTS_KUBERAY_CRD"


@functools.cache
def ray_service_schema() -> dict[str, object]:
    """Schema of a RayService's spec. Skips the test where the definition is not at hand."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(
            f"NOT CHECKED against KubeRay's own definition: set {VARIABLE} to a copy of ray.io_rayservices.yaml "
            "(helm-chart/kuberay-operator/crds of github.com/ray-project/kuberay); the restatement was checked"
        )
    with Path(path).open(encoding="utf-8") as file:
        definition = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    spec = _strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    assert isinstance(spec, dict)
    return spec


@functools.cache
def ray_service_validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(ray_service_schema())


def _strict(part: object) -> object:
    """Without Kubernetes' extensions, and with no fields beside those that are named."""
    if isinstance(part, list):
        return [_strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    strict = {key: _strict(value) for key, value in part.items() if not key.startswith("x-kubernetes-")}
    if part.get("x-kubernetes-int-or-string"):
        strict.pop("anyOf", None)
        strict["type"] = ["integer", "string"]
    if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    if part.get("type") == "object" and set(part) == {"type"}:  # metadata, which Kubernetes knows
        strict["additionalProperties"] = True
    return strict
