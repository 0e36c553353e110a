"""How KubeRay, a program in Go, writes and compares specifications."""

import copy
import json

from tests.deployments.commands.cluster.fields import Json


def as_go_writes(group: Json) -> Json:
    """Return a worker group with the empty structs that Go adds, and without the zero values that it leaves out."""
    group = copy.deepcopy(group)
    group.setdefault("scaleStrategy", {})
    pod = group.get("template", {}).get("spec", {})
    for container in (*pod.get("containers", []), *pod.get("initContainers", [])):
        container.setdefault("resources", {})
        for variable in container.get("env", []):
            if variable.get("value") == "":
                del variable["value"]
    return group


def without_muted(spec: Json) -> str:
    """Return the part of a specification whose change needs a new cluster.

    Source: GenerateHashWithoutReplicasAndWorkersToDelete (controllers/ray/utils/util.go), which mutes the other fields.
    """
    spec = copy.deepcopy({key: value for key, value in spec.items() if key != "upgradeStrategy"})
    groups = spec.get("workerGroupSpecs", [])
    for group in groups:
        for field in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(field, None)
        group.setdefault("scaleStrategy", {}).pop("workersToDelete", None)
    for part in (spec["headGroupSpec"], *groups):
        for field in ("tolerations", "schedulingGates"):
            part["template"]["spec"].pop(field, None)
    return json.dumps(spec, sort_keys=True)
