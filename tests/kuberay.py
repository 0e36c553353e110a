"""KubeRay's RayService as a JSON schema that refuses unknown fields: from its own definition where this machine has a
copy, else as far as it is restated in tests/k8s/custom_resources.yaml."""

import functools
import os
from pathlib import Path

import yaml

VARIABLE = "QWEN_TTS_KUBERAY_CRD"
NOT_HERE = (
    f"NOT CHECKED against KubeRay's own definition: set {VARIABLE} to a copy of ray.io_rayservices.yaml "
    "(helm-chart/kuberay-operator/crds of github.com/ray-project/kuberay); the restatement was checked"
)
# Of the specs of several kinds.
RESTATED = yaml.safe_load((Path(__file__).parent / "k8s" / "custom_resources.yaml").read_text(encoding="utf-8"))


@functools.cache
def ray_service_definition() -> dict[str, object] | None:
    """Schema of a whole RayService; None where the definition is not at hand."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    with Path(path).open(encoding="utf-8") as file:
        definition = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    assert isinstance(schema, dict)
    return schema


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
