"""Routes from outside: no proxy cuts a stream, and the examples of outside.md fit the chart's objects."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from k8s.render.__main__ import CHART, ROOT
from tests.documents import blocks
from tests.k8s.charts import Combination, Object, at, items, mapping, of_kind, ray_service, render, serve_config
from tests.kuberay import RESTATED

PAGE = (CHART / "outside.md").read_text(encoding="utf-8")
EXAMPLES = [loaded for block in blocks(PAGE) if block.language == "yaml" for loaded in yaml.safe_load_all(block.code)]
OBJECTS = [one for one in EXAMPLES if "apiVersion" in one]
VALUES = [one for one in EXAMPLES if "apiVersion" not in one]
NAME = "speech-qwen-tts"  # of the release `speech`
LONGEST_S = 300
# The longest time for which load balancers keep an idle connection (GKE cannot change it).
IDLE_S = 600


def routed(helm: Path, **options: object) -> tuple[Object, ...]:
    """Render the chart with an HTTPRoute."""
    route = {"enabled": True, "parentRefs": [{"name": "public"}], **options}
    return render(Combination(options=json.dumps({"httpRoute": route})), helm)


def rule(objects: tuple[Object, ...]) -> Object:
    (route,) = of_kind(objects, "HTTPRoute")
    (one,) = items(route, "spec", "rules")
    return one


def service(objects: tuple[Object, ...]) -> str:
    return f"{at(ray_service(objects), 'metadata', 'name')}-serve-svc"


def test_a_route_asks_for_no_timeouts_where_that_is_possible(helm: Path) -> None:
    assert rule(routed(helm))["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    for refused in ({"timeouts": False}, {"implementation": "gke"}, {"implementation": "aws"}):
        assert "timeouts" not in rule(routed(helm, **refused)), refused


def test_gke_neither_cuts_streams_nor_asks_a_path_that_does_not_exist(helm: Path) -> None:
    objects = routed(helm, implementation="gke")
    (policy,) = of_kind(objects, "GCPBackendPolicy")
    (health,) = of_kind(objects, "HealthCheckPolicy")
    target = {"group": "", "kind": "Service", "name": service(objects)}
    assert at(policy, "spec", "targetRef") == at(health, "spec", "targetRef") == target
    assert int(str(at(policy, "spec", "default", "timeoutSec"))) > 100 * LONGEST_S
    assert 3600 >= int(str(at(policy, "spec", "default", "connectionDraining", "drainingTimeoutSec"))) > LONGEST_S
    assert at(health, "spec", "default", "config", "httpHealthCheck", "requestPath") == "/-/healthz"


def test_aws_reaches_pods_and_lets_their_streams_end(helm: Path) -> None:
    objects = routed(helm, implementation="aws")
    (group,) = of_kind(objects, "TargetGroupConfiguration")
    assert at(group, "spec", "targetReference") == {"name": service(objects)}
    configuration = mapping(group, "spec", "defaultConfiguration")
    assert configuration["targetType"] == "ip", "KubeRay's Service has no node port"
    (delay,) = items(configuration, "targetGroupAttributes")
    assert int(str(delay["value"])) > LONGEST_S


def test_other_implementations_get_no_objects_of_a_cloud(helm: Path) -> None:
    kinds = {str(one["kind"]) for one in routed(helm)}
    assert not kinds & {"GCPBackendPolicy", "HealthCheckPolicy", "TargetGroupConfiguration"}


def test_objects_of_implementations_have_known_fields_only(helm: Path) -> None:
    for name in ("gke", "aws"):
        for one in routed(helm, implementation=name):
            if one["kind"] in RESTATED and one["kind"] != "RayService":
                jsonschema.validate(one["spec"], RESTATED[str(one["kind"])])


def test_longer_streams_drain_for_as_long_as_clouds_allow(helm: Path) -> None:
    route = {"enabled": True, "parentRefs": [{"name": "public"}], "implementation": "gke"}
    options = {"longestStreamSeconds": 9000, "httpRoute": route}
    (policy,) = of_kind(render(Combination(options=json.dumps(options)), helm), "GCPBackendPolicy")
    assert at(policy, "spec", "default", "connectionDraining", "drainingTimeoutSec") == 3600


def test_the_service_keeps_connections_longer_than_load_balancers(helm: Path) -> None:
    """Otherwise a load balancer sends requests into connections that the service is closing, and answers 502."""
    config = serve_config(render(Combination(), helm))
    assert int(str(at(config, "http_options", "keep_alive_timeout_s"))) > IDLE_S


def test_an_ingress_is_for_any_controller(helm: Path) -> None:
    (ingress,) = of_kind(render(Combination(options='{"ingress": {"enabled": true}}'), helm), "Ingress")
    assert "annotations" not in mapping(ingress, "metadata")
    assert "ingressClassName" not in mapping(ingress, "spec")


@pytest.mark.parametrize("example", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_objects_of_the_page_are_what_their_projects_define(example: Object) -> None:
    jsonschema.validate(example["spec"], RESTATED[str(example["kind"])])


def test_objects_of_the_page_name_objects_that_exist() -> None:
    gateways = {at(one, "metadata", "name") for one in OBJECTS if one["kind"] == "Gateway"}
    configurations = {at(one, "metadata", "name") for one in OBJECTS if one["kind"] == "LoadBalancerConfiguration"}
    assert gateways == configurations == {"public"}
    for one in OBJECTS:
        match one["kind"]:
            case "ClientTrafficPolicy":
                assert {target["name"] for target in items(one, "spec", "targetRefs")} <= gateways
            case "Gateway" if "infrastructure" in mapping(one, "spec"):
                assert at(one, "spec", "infrastructure", "parametersRef", "name") in configurations
            case "HTTPRoute":
                (backend,) = items(items(one, "spec", "rules")[0], "backendRefs")
                assert backend["name"] == f"{NAME}-gateway-istio", "KubeRay's Gateway, and Istio's name of its Service"
                assert f"gateway {NAME}-gateway " in PAGE


@pytest.mark.parametrize("values", VALUES, ids=lambda one: "-".join(one))
def test_values_of_the_page_are_accepted(helm: Path, values: Object) -> None:
    for one in render(Combination(options=json.dumps(values)), helm):
        if one["kind"] == "Ingress":
            kubernetes_validate.validate(one, "1.37", strict=True)


def test_the_alb_of_the_page_closes_idle_connections_before_the_service_does() -> None:
    limits = [int(seconds) for seconds in re.findall(r"idle_timeout.timeout_seconds(?:=|, value: \")(\d+)", PAGE)]
    assert limits == [IDLE_S] * 2


def test_the_command_of_the_page_makes_a_route(helm: Path) -> None:
    (command,) = re.findall(r"^\$ (helm .*)$", PAGE, re.MULTILINE)
    flags = [flag for flag in shlex.split(command)[2:] if flag != "--reset-then-reuse-values"]
    said = subprocess.run([str(helm), "template", *flags], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    (route,) = of_kind(tuple(filter(None, yaml.safe_load_all(said.stdout))), "HTTPRoute")
    assert at(route, "metadata", "name") == NAME
    assert items(route, "spec", "parentRefs") == [{"name": "public"}]


def test_whoever_turns_on_incremental_upgrades_reads_that_their_gateway_is_plain_http(helm: Path) -> None:
    chosen = ["--set", "upgradeStrategy.type=NewClusterWithIncrementalUpgrade"]
    for flags, said in (([], False), (chosen, True)):
        command = [str(helm), "install", "speech", str(CHART), "--dry-run=client", *flags]
        installed = subprocess.run(command, capture_output=True, text=True)
        assert installed.returncode == 0, installed.stderr
        notes = installed.stdout.partition("\nNOTES:\n")[2]
        assert ("speech-qwen-tts-gateway speaks plain HTTP" in notes) == said
