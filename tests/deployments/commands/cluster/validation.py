"""Validation of RayServices against KubeRay's custom resource definition, as in an API server."""

import jsonschema

from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.store import Kind
from tests.kuberay import RESTATED, ray_service_definition


def ray_service_schema() -> Json:
    """Return KubeRay's definition, or the excerpt with the fields that the chart uses."""
    restated = {"type": "object", "properties": {"spec": RESTATED["RayService"], "status": {"type": "object"}}}
    return ray_service_definition() or restated


class RayServiceRules:
    """The faults that an API server finds in a RayService."""

    def __init__(self) -> None:
        self._validator = jsonschema.Draft202012Validator(ray_service_schema())

    def __call__(self, kind: Kind, body: Json) -> tuple[list[tuple[str, ...]], list[str]]:
        """Return the paths of unknown fields, and messages about the other faults."""
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
