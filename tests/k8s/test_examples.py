"""helm/examples: the objects are what their projects know, fit the chart, and fit each other."""

import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from lupa.lua51 import LuaRuntime

from k8s.render.__main__ import CHART, ROOT
from tests.k8s.charts import HARDWARE, Combination, Object, at, containers, items, mapping, of_kind, render

EXAMPLES = ROOT / "helm" / "examples"
RESTATED = yaml.safe_load((Path(__file__).parent / "example_resources.yaml").read_text(encoding="utf-8"))
# Kubernetes' own kinds.
CORE = {"v1/ConfigMap"}


def load(name: str) -> list[Object]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


OBJECTS = [
    one
    for file in sorted(EXAMPLES.rglob("*.yaml"))
    if not file.name.startswith("values-")
    for one in load(str(file.relative_to(EXAMPLES)))
]
(APPLICATION,) = load("argocd/application.yaml")
REPOSITORY, FLUX_CHART, RELEASE = load("flux/release.yaml")
ARGO_HELM = mapping(APPLICATION, "spec", "source", "helm")
VALUES = mapping(ARGO_HELM, "valuesObject")


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_objects_are_what_their_projects_know(one: Object) -> None:
    kind = f"{one['apiVersion']}/{one['kind']}"
    if kind in CORE:
        kubernetes_validate.validate(one, "1.37", strict=True)
    else:
        jsonschema.validate(one["spec"], RESTATED[kind])


def rendered_values(helm: Path, values: Object, *presets: str) -> tuple[Object, ...]:
    return render(Combination(presets, json.dumps(values)), helm)


def texts(part: object, *path: str) -> list[str]:
    found = at(part, *path)
    assert isinstance(found, list), path
    return [str(one) for one in found]


def preset_of(file: str) -> str:
    assert (CHART / file).is_file(), file
    return file.removeprefix("values-").removesuffix(".yaml")


def test_argo_and_flux_install_the_same(helm: Path) -> None:
    presets = [preset_of(file) for file in texts(ARGO_HELM, "valueFiles")]
    first, *rest = texts(FLUX_CHART, "spec", "valuesFiles")
    assert first == "values.yaml", "Flux replaces the chart's own values by those that are listed"
    assert [preset_of(file) for file in rest] == presets
    assert at(RELEASE, "spec", "values") == VALUES
    assert at(RELEASE, "spec", "releaseName") == ARGO_HELM["releaseName"]
    objects = rendered_values(helm, VALUES, *presets)
    assert {"RayService", "Job", "HTTPRoute"} <= {str(one["kind"]) for one in objects}


def test_they_name_the_chart_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    source = mapping(APPLICATION, "spec", "source")
    assert (source["chart"], source["targetRevision"]) == (chart["name"], chart["version"])
    spec = mapping(FLUX_CHART, "spec")
    assert (spec["chart"], spec["version"]) == (chart["name"], chart["version"])
    assert at(spec, "sourceRef", "name") == at(REPOSITORY, "metadata", "name")
    assert at(RELEASE, "spec", "chartRef", "name") == at(FLUX_CHART, "metadata", "name")
    assert at(REPOSITORY, "spec", "url") == f"oci://{source['repoURL']}"


def test_flux_waits_longer_than_a_start_may_take() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    (minutes,) = re.findall(r"^(\d+)m$", str(at(RELEASE, "spec", "timeout")))
    assert int(minutes) * 60 > int(values["startupSeconds"])


def test_secrets_are_those_that_the_values_name() -> None:
    made = {}
    for one in load("external-secrets.yaml"):
        (data,) = items(one, "spec", "data")
        made[str(at(one, "spec", "target", "name"))] = data["secretKey"]
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert made == {
        at(VALUES, "apiKeys", "secretName"): at(defaults, "apiKeys", "key"),
        at(VALUES, "models", "tokenSecret", "name"): at(defaults, "models", "tokenSecret", "key"),
        at(VALUES, "test", "apiKeySecret", "name"): at(defaults, "test", "apiKeySecret", "key"),
    }


def test_the_certificate_is_that_of_the_gateway_of_the_route(helm: Path) -> None:
    certificate, gateway = load("certificate.yaml")
    (listener,) = items(gateway, "spec", "listeners")
    (reference,) = items(listener, "tls", "certificateRefs")
    assert reference["name"] == at(certificate, "spec", "secretName")
    assert [listener["hostname"]] == at(certificate, "spec", "dnsNames")
    (route,) = of_kind(rendered_values(helm, VALUES), "HTTPRoute")
    assert items(route, "spec", "parentRefs") == [{"name": at(gateway, "metadata", "name")}]
    assert at(route, "spec", "hostnames") == at(certificate, "spec", "dnsNames")


@pytest.mark.parametrize("hardware", HARDWARE)
def test_without_the_internet_only_named_machines_are_contacted(helm: Path, hardware: str) -> None:
    values = mapping({"values": load("values-air-gapped.yaml")[0]}, "values")
    objects = rendered_values(helm, values, hardware, "one-model")
    mirror = at(values, "models", "endpoint")
    (job,) = of_kind(objects, "Job")
    (download,) = items(job, "spec", "template", "spec", "containers")
    assert {"name": "HF_ENDPOINT", "value": mirror} in items(download, "env")
    for container in containers(objects):
        assert str(container["image"]).startswith(f"{at(values, 'image', 'repository')}:")
        if container["name"] == "ray-worker":
            assert {"name": "HF_HUB_OFFLINE", "value": "1"} in items(container, "env")
    text = json.dumps(objects)
    assert of_kind(objects, "StatefulSet"), "the example shows where the Redis comes from"
    registry = str(at(values, "image", "repository")).partition("/")[0]
    assert {image.partition("/")[0] for image in re.findall(r'"image": "([^"]+)"', text)} == {registry}
    # Names of machines that are neither in the example nor keys of labels and annotations.
    assert set(re.findall(r"https?://([^/:\"\\ ]+)", text)) <= {
        str(mirror).removeprefix("https://"),
        "qwen-tts-serve-svc",
    }


def condition(kind: str, status: str, reason: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": f"{reason}."}


READY = condition("Ready", "True", "NonZeroServeEndpoints")
STARTING = condition("Ready", "False", "Initializing")
EMPTY = condition("Ready", "False", "ZeroServeEndpoints")
LATE = condition("Ready", "False", "InitializingTimeout")
WRONG = condition("Ready", "False", "ValidationFailed")
QUIET = condition("UpgradeInProgress", "False", "NoPendingCluster")
UPGRADE = condition("UpgradeInProgress", "True", "BothActivePendingClustersExist")


@pytest.mark.parametrize(
    ("suspend", "generation", "observed", "conditions", "health"),
    [
        (False, 1, None, None, "Progressing"),  # no status yet
        (False, 1, 1, [STARTING, QUIET], "Progressing"),
        (False, 1, 1, [READY, QUIET], "Healthy"),
        (False, 2, 1, [READY, QUIET], "Progressing"),  # ready is what the old version was
        (False, 2, 2, [READY, UPGRADE], "Progressing"),
        (False, 2, 2, [EMPTY, QUIET], "Degraded"),
        (False, 3, 2, [LATE], "Degraded"),  # the operator reads no further version
        (False, 2, 1, [WRONG], "Degraded"),
        (True, 2, 1, [READY, QUIET], "Suspended"),
    ],
)
def test_argo_sees_the_health_of_the_service(
    suspend: bool, generation: int, observed: int | None, conditions: list[Object] | None, health: str
) -> None:
    (config,) = load("argocd/health.yaml")
    script = at(config, "data", "resource.customizations.health.ray.io_RayService")
    lua = LuaRuntime()
    service: Object = {"metadata": {"generation": generation}, "spec": {"suspend": suspend}}
    if conditions is not None:
        service["status"] = {"observedGeneration": observed, "conditions": conditions}
    lua.globals()["obj"] = lua.table_from(service, recursive=True)
    assert lua.execute(script)["status"] == health
