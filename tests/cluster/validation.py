"""Validation of RayServices against KubeRay's custom resource definition, as an API server does it.

The definition is read from the file that QWEN_TTS_KUBERAY_CRD names (ray.io_rayservices.yaml of a KubeRay release);
without it, from the few fields restated here.
"""

import copy
import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.cluster.fields import Json
from tests.cluster.store import Kind

RESTATED = """
type: object
properties:
  spec:
    type: object
    required: [rayClusterConfig]
    properties:
      serveConfigV2: {type: string}
      excludeHeadPodFromServeSvc: {type: boolean}
      rayClusterDeletionDelaySeconds: {type: integer, minimum: 0}
      suspend: {type: boolean}
      upgradeStrategy: {type: object, properties: {type: {type: string}}}
      serveService: {type: object, x-kubernetes-preserve-unknown-fields: true}
      rayClusterConfig:
        type: object
        required: [headGroupSpec]
        properties:
          rayVersion: {type: string}
          enableInTreeAutoscaling: {type: boolean}
          headGroupSpec:
            type: object
            required: [template]
            properties:
              rayStartParams: {type: object, additionalProperties: {type: string}}
              template: &template
                type: object
                properties:
                  metadata:
                    type: object
                    properties:
                      annotations: {type: object, additionalProperties: {type: string}}
                      labels: {type: object, additionalProperties: {type: string}}
                  spec:
                    type: object
                    required: [containers]
                    x-kubernetes-preserve-unknown-fields: true
          workerGroupSpecs:
            type: array
            items:
              type: object
              required: [groupName, maxReplicas, minReplicas, template]
              properties:
                groupName: {type: string}
                replicas: {type: integer}
                minReplicas: {type: integer}
                maxReplicas: {type: integer}
                numOfHosts: {type: integer}
                rayStartParams: {type: object, additionalProperties: {type: string}}
                template: *template
  status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


@functools.cache
def ray_service_schema() -> Json:
    """JSON schema of a RayService, unknown fields refused."""
    path = os.environ.get("QWEN_TTS_KUBERAY_CRD")
    if path is None:
        return _closed(yaml.safe_load(RESTATED))
    definition = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)  # nothing but data
    (version,) = [found for found in definition["spec"]["versions"] if found["name"] == "v1"]
    return _closed(version["schema"]["openAPIV3Schema"])


class RayServiceRules:
    """What an API server finds wrong with a RayService."""

    def __init__(self) -> None:
        self._validator = jsonschema.Draft202012Validator(ray_service_schema())

    def __call__(self, kind: Kind, body: Json) -> tuple[list[tuple[str, ...]], list[str]]:
        """Paths of unknown fields; messages about the others."""
        if kind.kind != "RayService":
            return [], []
        unknown: list[tuple[str, ...]] = []
        invalid: list[str] = []
        checked = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
        for error in self._validator.iter_errors(checked):
            path = tuple(map(str, error.absolute_path))
            if error.validator == "additionalProperties":
                known = error.schema["properties"]
                unknown += [(*path, name) for name in error.instance if name not in known]
            else:
                invalid.append(f"{'.'.join(path)}: {error.message}")
        return unknown, invalid


def _closed(schema: Json) -> Json:
    """An openAPI v3 schema of Kubernetes as a JSON schema that refuses what it does not name."""
    schema = copy.deepcopy(schema)
    _close(schema)
    schema["properties"].pop("metadata", None)
    return schema


def _close(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _close(item)
    if not isinstance(node, dict):
        return
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("anyOf", None)
        node["type"] = ["integer", "string"]
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    for value in node.values():
        _close(value)
