"""Combinations of presets and options of the chart, rendered by the real helm."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deployments.settings import AppArgs
from k8s.render.__main__ import CHART, helm_template, preset

Object = dict[str, object]

HARDWARE = ("cpu-demo", "l4", "a10", "l40s", "a100", "h100")
MODELS = ("one-model", "three-families")
PRESETS = (*HARDWARE, *MODELS)

# Every optional object and every optional field; `make lint-manifests` renders it too.
EVERYTHING: Object = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text(encoding="utf-8"))
NOTHING: Object = {
    "auth": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "models": {"download": False, "claim": {"enabled": True, "existing": "models"}},
    "topologyKeys": [],
    "upgradeStrategy": {"type": "None"},
}
# A group with every field of a pod, and the chart's own Redis.
HEAD = EVERYTHING["head"]
assert isinstance(HEAD, dict)
OPEN: Object = {
    "workerGroups": [
        {
            **HEAD,
            "name": "speech",
            "minReplicas": 2,
            "maxReplicas": 3,
            "resources": {
                "requests": {"cpu": "2", "memory": "6Gi", "ephemeral-storage": "5Gi"},
                "limits": {"cpu": "4", "memory": "6Gi"},
            },
        }
    ],
    "env": {"HTTPS_PROXY": "http://other:3128"},
    "gcsFaultTolerance": {
        "enabled": True,
        "passwordSecret": {"name": "redis"},
        "redis": {"storageClassName": "fast", "nodeSelector": {"pool": "redis"}},
    },
}
# A container of everything.yaml that is not the chart's.
FOREIGN = "certificates"
INCREMENTAL: Object = {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}}


@dataclass(frozen=True)
class Combination:
    """Presets in their order, and options that override them."""

    presets: tuple[str, ...] = ()
    options: str = "{}"

    def __str__(self) -> str:
        return "+".join(self.presets) or "defaults"


def _combinations() -> Iterator[Combination]:
    yield Combination()
    yield from (Combination((preset,)) for preset in PRESETS)
    yield from (Combination((hardware, models)) for hardware in HARDWARE[1:] for models in MODELS)
    yield Combination(("l4", "three-families", "redundant"))
    for options in (EVERYTHING, NOTHING, INCREMENTAL):
        yield Combination(("h100", "three-families"), json.dumps(options))
    yield Combination(options=json.dumps(OPEN))


COMBINATIONS = tuple(_combinations())
ALL = pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
FULL = Combination(("h100", "three-families"), json.dumps(EVERYTHING))


class Refused(Exception):
    """Helm refused to render. The message is helm's."""


@functools.cache
def render(combination: Combination, helm: Path) -> tuple[Object, ...]:
    """Return the rendered objects, including the test pod. Raises Refused."""
    options = yaml.safe_load(combination.options)
    flags = [flag for key, value in options.items() for flag in ("--set-json", f"{key}={json.dumps(value)}")]
    said = helm_template(combination.presets, *flags, helm=helm)
    if said.returncode != 0:
        raise Refused(said.stderr)
    return tuple(loaded for loaded in yaml.safe_load_all(said.stdout) if loaded is not None)


def of_kind(objects: tuple[Object, ...], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def at(part: object, *path: str | int) -> object:
    """Return the value at `path`. Every step must exist."""
    for step in path:
        assert isinstance(part, dict | list), (path, step)
        part = part[step]  # type: ignore[index]
    return part


def mapping(part: object, *path: str | int) -> Object:
    found = at(part, *path)
    assert isinstance(found, dict), (path, found)
    return found


def items(part: object, *path: str | int) -> list[Object]:
    found = at(part, *path)
    assert isinstance(found, list), (path, found)
    return found


def ray_service(objects: tuple[Object, ...]) -> Object:
    (service,) = of_kind(objects, "RayService")
    return service


def templates(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Return the pod templates of the RayService by group; the head's is called "head"."""
    cluster = mapping(ray_service(objects), "spec", "rayClusterConfig")
    groups = {str(group["groupName"]): mapping(group, "template") for group in items(cluster, "workerGroupSpecs")}
    return {"head": mapping(cluster, "headGroupSpec", "template"), **groups}


def pods(objects: tuple[Object, ...]) -> list[Object]:
    """Return every pod spec, including those of the test pod and of the model cache."""
    specs = [mapping(template, "spec") for template in templates(objects).values()]
    specs += [mapping(job, "spec", "template", "spec") for job in of_kind(objects, "Job")]
    return specs + [mapping(pod, "spec") for pod in of_kind(objects, "Pod")]


def containers(objects: tuple[Object, ...]) -> list[Object]:
    """Return the containers of the chart in Ray's pods and the test pod."""
    found = []
    for spec in pods(objects):
        for kind in ("initContainers", "containers"):
            found += items(spec, kind) if kind in spec else []
    return [container for container in found if container["name"] != FOREIGN]


def serve_config(objects: tuple[Object, ...]) -> Object:
    loaded = yaml.safe_load(str(at(ray_service(objects), "spec", "serveConfigV2")))
    assert isinstance(loaded, dict)
    return loaded


def app_settings(combination: Combination) -> AppArgs:
    """Return the settings of the application: those of the values, and those that the chart derives."""
    files = [CHART / "values.yaml", *(preset(name) for name in combination.presets)]
    values: Object = {}
    for file in files:
        values = _merged(values, yaml.safe_load(file.read_text(encoding="utf-8")))
    values |= yaml.safe_load(combination.options)
    app = mapping(values, "app")
    grace = {"graceful_shutdown_s": values["longestStreamSeconds"]}
    derived: Object = dict.fromkeys(("talker", "codec_decoder", "codec_encoder", "ingress"), grace)
    if secret := at(values, "apiKeys", "secretName") if "secretName" in mapping(values, "apiKeys") else None:
        assert secret
        derived["api_keys"] = {"file": f"/etc/qwen-tts/{mapping(values, 'apiKeys').get('key', 'api-keys.yaml')}"}
    if at(values, "voices", "claim", "enabled"):
        derived["voices"] = {"url": "/voices"}
    models = [
        {**model, "talker": {**mapping(model, "talker"), **grace}} if "talker" in model else model
        for model in (items(app, "models") if "models" in app else [])
    ]
    return AppArgs.model_validate(_merged(_merged(app, derived), {"models": models} if models else {}))


def _merged(first: Object, second: Object) -> Object:
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def environment(container: Object) -> Object:
    """Return the variables of a container, by name."""
    return {str(one["name"]): one.get("value") for one in items(container, "env")}
