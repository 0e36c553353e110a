"""Validation of RayServices against KubeRay's custom resource definition, as an API server does it."""

import jsonschema

from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.store import Kind
from tests.kuberay import RESTATED, ray_service_definition


def ray_service_schema() -> Json:
    """KubeRay's own, or as much of it as the chart uses."""
    restated = {"type": "object", "properties": {"spec": RESTATED["RayService"], "status": {"type": "object"}}}
    return ray_service_definition() or restated


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
