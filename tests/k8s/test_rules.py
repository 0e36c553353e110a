"""The rules that all rendered objects of the chart must keep."""

import json
import re
from pathlib import Path

from deployments.commands.local_service import RAY_SETTINGS
from deployments.settings import AppArgs
from k8s.render.__main__ import CHART, helm_template
from tests.k8s.charts import (
    ALL,
    EVERYTHING,
    FULL,
    Combination,
    at,
    containers,
    environment,
    items,
    mapping,
    of_kind,
    pods,
    ray_service,
    render,
    serve_config,
    templates,
)

# KubeRay's limit for the name of a RayService: a cluster's name has six characters more, its Service's ten more, of 63.
LONGEST_NAME = 47
# The label controller-revision-hash of its pods has eleven characters more, of 63.
LONGEST_STATEFUL_SET = 52
# Ray's workers wait 60 s for the head, if no Redis lets them wait longer.
SOON_S = 60


def workers(objects: tuple[dict[str, object], ...]) -> dict[str, dict[str, object]]:
    return {group: template for group, template in templates(objects).items() if group != "head"}


@ALL
def test_no_stream_is_cut_by_what_should_wait_for_it(helm: Path, combination: Combination) -> None:
    objects = render(combination, helm)
    (application,) = items(serve_config(objects), "applications")
    (stream_s,) = {float(str(one["graceful_shutdown_timeout_s"])) for one in items(application, "deployments")}
    spec = mapping(ray_service(objects), "spec")
    for template in workers(objects).values():
        (container,) = items(template, "spec", "containers")
        drain_s = float(str(environment(container)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]))
        assert stream_s < drain_s < int(str(at(template, "spec", "terminationGracePeriodSeconds")))
        assert drain_s < int(str(spec["rayClusterDeletionDelaySeconds"]))
        assert "lifecycle" not in container, "a preStop hook with `ray stop` would skip the drain"


@ALL
def test_ray_notices_dead_callers_as_fast_as_on_one_machine(helm: Path, combination: Combination) -> None:
    expected = {name: value for name, value in RAY_SETTINGS.items() if name != "RAY_worker_niceness"}
    for template in templates(render(combination, helm)).values():
        (container,) = items(template, "spec", "containers")
        assert expected.items() <= environment(container).items()


@ALL
def test_a_lost_head_is_soon_replaced(helm: Path, combination: Combination) -> None:
    """KubeRay makes no new head before the old one has gone. No stream runs on the head, so it need not wait."""
    template = templates(render(combination, helm))["head"]
    (container,) = items(template, "spec", "containers")
    drain_s = float(str(environment(container)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]))
    assert drain_s < int(str(at(template, "spec", "terminationGracePeriodSeconds"))) <= SOON_S
    assert "lifecycle" not in container


def test_a_model_with_a_talker_of_its_own_waits_as_long(helm: Path) -> None:
    options = {"app": {"models": [{"name": "a", "type": "base", "talker": {"slots": 2}}]}, "longestStreamSeconds": 77}
    (application,) = items(serve_config(render(Combination(options=json.dumps(options)), helm)), "applications")
    (model,) = AppArgs.model_validate(application["args"]).models
    assert model.talker is not None
    assert model.talker.slots == 2
    assert {one["graceful_shutdown_timeout_s"] for one in items(application, "deployments")} == {77}


@ALL
def test_images_are_named_by_version_or_content(helm: Path, combination: Combination) -> None:
    for container in containers(render(combination, helm)):
        assert re.fullmatch(r"qwen-tts(:\d+\.\d+\.\d+-(cpu|cuda)|@sha256:[0-9a-f]{64})", str(container["image"]))


@ALL
def test_every_container_is_confined_and_bounded(helm: Path, combination: Combination) -> None:
    objects = render(combination, helm)
    cluster = mapping(ray_service(objects), "spec", "rayClusterConfig")
    for container in [*containers(objects), mapping(cluster, "autoscalerOptions")]:
        security = mapping(container, "securityContext")
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= mapping(container, "resources", bound).keys()
        mounted = {str(mount["mountPath"]) for mount in items(container, "volumeMounts")}
        assert {"/tmp", environment(container)["HOME"]} <= mounted, "what is written needs a volume"
    for pod in pods(objects):
        assert mapping(pod, "securityContext")["seccompProfile"] == {"type": "RuntimeDefault"}
        assert int(str(at(pod, "securityContext", "runAsUser"))) > 0


@ALL
def test_only_the_head_has_a_token_of_kubernetes(helm: Path, combination: Combination) -> None:
    objects = render(combination, helm)
    (account,) = of_kind(objects, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    head = mapping(templates(objects)["head"], "spec")
    # KubeRay creates the account of the head, because the autoscaler on the head scales the cluster.
    assert "automountServiceAccountToken" not in head
    assert "serviceAccountName" not in head
    for pod in pods(objects):
        if pod != head:
            assert pod["automountServiceAccountToken"] is False
            assert pod["serviceAccountName"] == at(account, "metadata", "name")


@ALL
def test_volumes_and_mounts_are_the_same(helm: Path, combination: Combination) -> None:
    for pod in pods(render(combination, helm)):
        mounted = {
            mount["name"]
            for kind in ("initContainers", "containers")
            for container in (items(pod, kind) if kind in pod else [])
            for mount in items(container, "volumeMounts")
        }
        assert mounted == {volume["name"] for volume in items(pod, "volumes")}


@ALL
def test_no_replica_runs_on_the_head(helm: Path, combination: Combination) -> None:
    spec = mapping(ray_service(render(combination, helm)), "spec")
    assert spec["excludeHeadPodFromServeSvc"] is True
    assert at(spec, "rayClusterConfig", "headGroupSpec", "rayStartParams", "num-cpus") == "0"


@ALL
def test_a_worker_leaves_the_service_only_after_several_slow_answers(helm: Path, combination: Combination) -> None:
    """KubeRay's own probe fails after one answer that takes 2 s, which happens while replicas compile."""
    for group, template in templates(render(combination, helm)).items():
        (container,) = items(template, "spec", "containers")
        if group != "head":
            probe = mapping(container, "readinessProbe")
            assert probe["httpGet"] == {"path": "/-/healthz", "port": "serve"}
            assert int(str(probe["timeoutSeconds"])) >= 5
            assert int(str(probe["failureThreshold"])) >= 3


def test_kuberay_gives_up_on_an_installation_only_if_asked_to(helm: Path) -> None:
    """KubeRay then ignores every later change."""
    name = "ray.io/initializing-timeout"
    assert "annotations" not in mapping(ray_service(render(Combination(), helm)), "metadata")
    asked = render(Combination(options='{"initializingTimeoutSeconds": 1000000}'), helm)
    assert at(ray_service(asked), "metadata", "annotations") == {name: "1000000"}


@ALL
def test_selectors_match_pods_and_only_those_meant(helm: Path, combination: Combination) -> None:
    objects = render(combination, helm)
    labels = {
        group: {
            **mapping(template, "metadata", "labels"),
            "ray.io/is-ray-node": "yes",  # KubeRay adds this label
            "ray.io/node-type": "head" if group == "head" else "worker",
        }
        for group, template in templates(objects).items()
    }

    def matched(selector: dict[str, object]) -> set[str]:
        return {group for group, has in labels.items() if selector.items() <= has.items()}

    (test,) = of_kind(objects, "Pod")
    groups = set(labels)
    labels["test"] = mapping(test, "metadata", "labels")
    for job in of_kind(objects, "Job"):
        labels["model-cache"] = mapping(job, "spec", "template", "metadata", "labels")
    labels["cleanup"] = labels["head"] | {"ray.io/node-type": "redis-cleanup"}  # a Job that KubeRay creates
    for redis in of_kind(objects, "StatefulSet"):
        labels["redis"] = mapping(redis, "spec", "template", "metadata", "labels")
        assert matched(mapping(redis, "spec", "selector", "matchLabels")) == {"redis"}
    for budget in of_kind(objects, "PodDisruptionBudget"):
        (group,) = matched(mapping(budget, "spec", "selector", "matchLabels")) - {"cleanup"}
        assert str(at(budget, "metadata", "name")).endswith(f"-{group}")
    policies = {
        frozenset(matched(mapping(policy, "spec", "podSelector", "matchLabels"))): policy
        for policy in of_kind(objects, "NetworkPolicy")
    }
    if "gcsFaultToleranceOptions" not in mapping(ray_service(objects), "spec", "rayClusterConfig"):
        del labels["cleanup"]
    nodes = {frozenset({"head"}), frozenset(groups - {"head"})}
    alone = {frozenset({name}) for name in set(labels) - groups}
    assert set(policies) in (set(), nodes | alone)
    for policy in [policies[node] for node in nodes & set(policies)]:
        ours = mapping(items(items(policy, "spec", "ingress")[0], "from")[0], "podSelector", "matchLabels")
        assert matched(ours) - {"cleanup"} == groups
    for monitor in of_kind(objects, "PodMonitor"):
        assert matched(mapping(monitor, "spec", "selector", "matchLabels")) - {"cleanup"} == groups
    for group, template in templates(objects).items():
        spec = mapping(template, "spec")
        for spread in items(spec, "topologySpreadConstraints") if "topologySpreadConstraints" in spec else []:
            assert matched(mapping(spread, "labelSelector", "matchLabels")) == {group}


@ALL
def test_pods_wear_no_label_that_a_release_changes(helm: Path, combination: Combination) -> None:
    """A changed label on a pod template starts a new cluster."""
    for template in templates(render(combination, helm)).values():
        keys = set(mapping(template, "metadata", "labels")) - set(mapping(EVERYTHING, "head", "podLabels"))
        assert keys == {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}


def test_the_dashboard_and_gcs_are_closed_to_all_but_cluster_and_operator(helm: Path) -> None:
    specs = [mapping(policy, "spec") for policy in of_kind(render(FULL, helm), "NetworkPolicy")]
    roles = [mapping(spec, "podSelector", "matchLabels").get("ray.io/node-type") for spec in specs]
    nodes = [spec for spec, role in zip(specs, roles, strict=True) if role in ("head", "worker")]
    assert [spec for spec in specs if "ingress" in spec] == nodes, "nobody calls the jobs or the test"
    assert len(nodes) == 2
    for spec in nodes:
        cluster, *rest = items(spec, "ingress")
        assert "ports" not in cluster
        for rule in rest:
            ports = {port["port"] for port in items(rule, "ports")}
            peers = items(rule, "from")
            if 8265 in ports:
                assert ports == {8265}
                (peer,) = peers
                assert mapping(peer, "podSelector", "matchLabels") == {"app.kubernetes.io/name": "kuberay-operator"}
            else:
                assert ports <= {8000, 8080, 44217, 44227}
            assert peers, "a rule without peers is a rule for everyone"


def test_ports_that_others_ask_for_are_open(helm: Path) -> None:
    objects = render(FULL, helm)
    ports = {
        group: {str(port["name"]): port["containerPort"] for port in items(template, "spec", "containers", 0, "ports")}
        for group, template in templates(objects).items()
    }
    http = mapping(serve_config(objects), "http_options")
    for group, named in ports.items():
        assert named["serve"] == http["port"], group
    (monitor,) = of_kind(objects, "PodMonitor")
    assert {str(one["port"]) for one in items(monitor, "spec", "podMetricsEndpoints")} <= set(ports["head"])
    (ingress,) = of_kind(objects, "Ingress")
    (route,) = of_kind(objects, "HTTPRoute")
    (path,) = items(items(ingress, "spec", "rules")[0], "http", "paths")
    (backend,) = items(items(route, "spec", "rules")[0], "backendRefs")
    service = f"{at(ray_service(objects), 'metadata', 'name')}-serve-svc"
    assert at(path, "backend", "service") == {"name": service, "port": {"number": http["port"]}}
    assert backend == {"name": service, "port": http["port"]}


def test_http_proxies_are_on_every_node_and_listen_on_every_interface(helm: Path) -> None:
    """For KubeRay, a worker is ready when the worker's own proxy answers."""
    config = serve_config(render(FULL, helm))
    assert config["proxy_location"] == "EveryNode"
    assert at(config, "http_options", "host") == "0.0.0.0"


def test_secrets_are_named_and_never_held(helm: Path) -> None:
    objects = render(FULL, helm)
    assert of_kind(objects, "Secret") == []
    worker = items(templates(objects)["talker"], "spec", "containers")[0]
    assert worker["envFrom"] == [{"secretRef": {"name": "objects"}}]
    (application,) = items(serve_config(objects), "applications")
    assert at(application, "args", "api_keys", "file") == "/etc/qwen-tts/api-keys.yaml"
    assert {"name": "api-keys", "mountPath": "/etc/qwen-tts", "readOnly": True} in items(worker, "volumeMounts")
    assert at(application, "args", "voices", "url") == "/voices"


def test_only_checkpoints_of_the_hub_are_downloaded(helm: Path) -> None:
    names = ("Qwen/Qwen3-TTS-12Hz-1.7B-Base", "owner-less", "/models/ours", "~/ours", "./ours", "embedded")
    models = [{"name": f"m{n}", "checkpoint": name, "type": "base"} for n, name in enumerate(names)]
    objects = render(Combination(options=json.dumps({"app": {"models": models}})), helm)
    (init,) = items(templates(objects)["speech"], "spec", "initContainers")
    assert [str(argument) for argument in items(init, "args")[1:]] == ["Qwen/Qwen3-TTS-12Hz-1.7B-Base", "owner-less"]
    (worker,) = items(templates(objects)["speech"], "spec", "containers")
    assert environment(worker)["HF_HUB_OFFLINE"] == "1"
    assert environment(worker)["HF_HOME"] == environment(init)["HF_HOME"]
    assert "initContainers" not in mapping(templates(render(Combination(), helm))["speech"], "spec")


def test_long_release_names_are_cut(helm: Path) -> None:
    said = helm_template((), "--set", "gcsFaultTolerance.enabled=true", release="a" * 53, helm=helm)
    assert said.returncode == 0, said.stderr
    names = dict(re.findall(r"^kind: (\w+)\nmetadata:\n  name: (\S+)", said.stdout, re.MULTILINE))
    assert len(names["RayService"]) <= LONGEST_NAME
    assert len(names["StatefulSet"]) <= LONGEST_STATEFUL_SET
    assert f'redisAddress: "{names["StatefulSet"]}:6379"' in said.stdout


def test_the_rays_of_chart_and_package_are_the_same() -> None:
    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    project = (CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r"qwen-tts/ray: (\S+)", chart) == re.findall(r'"ray\[serve\]==(\S+)"', project)
    assert re.findall(r"appVersion: (\S+)", chart) == re.findall(r'^version = "(\S+)"', project, re.MULTILINE)
