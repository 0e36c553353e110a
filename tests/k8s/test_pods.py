"""The pods as a platform team wants them: open fields, devices of any kind, budgets, and a Redis for the head."""

import json
from ipaddress import ip_network
from pathlib import Path

import kubernetes_validate
import pytest

from k8s.render.pod_values import Pod
from tests.k8s.charts import (
    ALL,
    EVERYTHING,
    FULL,
    OPEN,
    Combination,
    Object,
    Refused,
    at,
    environment,
    items,
    mapping,
    of_kind,
    pods,
    ray_service,
    render,
    templates,
)

OPENED = Combination(options=json.dumps(OPEN))
GIVEN = mapping(EVERYTHING, "head")
(GROUP,) = items(OPEN, "workerGroups")


def of_group(helm: Path, others: Object | None = None, **fields: object) -> Object:
    """Return the RayService's group that is made of the fields. `others` are values besides the group."""
    group = {"name": "a", "minReplicas": 1, "maxReplicas": 1, **fields}
    objects = render(Combination(options=json.dumps({"workerGroups": [group]} | (others or {}))), helm)
    (found,) = items(ray_service(objects), "spec", "rayClusterConfig", "workerGroupSpecs")
    return found


def amounts(**devices: str) -> Object:
    both = {"cpu": "2", "memory": "6Gi", **devices}
    return {"requests": both, "limits": both}


def test_every_pod_may_have_every_open_field(helm: Path) -> None:
    assert set(GIVEN) == set(Pod.model_fields), "everything.yaml gives every field"
    (test,) = of_kind(render(FULL, helm), "Pod")
    for pod in (templates(render(FULL, helm))["head"], templates(render(OPENED, helm))["speech"], test):
        spec = mapping(pod, "spec")
        (container,) = items(spec, "containers")
        for key in (
            "nodeSelector",
            "tolerations",
            "affinity",
            "priorityClassName",
            "runtimeClassName",
            "schedulerName",
        ):
            assert spec[key] == GIVEN[key]
        assert mapping(GIVEN, "podLabels").items() <= mapping(pod, "metadata", "labels").items()
        assert mapping(GIVEN, "podAnnotations").items() <= mapping(pod, "metadata", "annotations").items()
        assert mapping(GIVEN, "env").items() <= environment(container).items(), "the pod's value wins"
        assert items(spec, "initContainers")[0] == items(GIVEN, "initContainers")[0]
        assert items(GIVEN, "extraVolumes")[0] in items(spec, "volumes")
        assert items(GIVEN, "extraVolumeMounts")[0] in items(container, "volumeMounts")


@ALL
def test_no_variable_of_a_container_repeats(helm: Path, combination: Combination) -> None:
    """A list with two variables of one name is refused by the API server."""
    for pod in pods(render(combination, helm)):
        for container in items(pod, "containers"):
            names = [one["name"] for one in items(container, "env")]
            assert len(names) == len(set(names))


def test_claims_of_devices_reach_the_pod(helm: Path) -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    resources = amounts() | {"claims": [{"name": "gpu"}]}
    found = of_group(helm, resources=resources, resourceClaims=claims, rayResources={"GPU": "1"}, mps=True)
    template = mapping(found, "template")
    assert at(template, "spec", "resourceClaims") == claims
    assert at(template, "spec", "containers", 0, "resources") == resources
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, "1.37", strict=True)


@pytest.mark.parametrize(
    ("devices", "ray", "gpus"),
    [
        ({}, {}, None),
        ({"nvidia.com/gpu": "2"}, {}, "2"),
        ({"nvidia.com/gpu.shared": "1"}, {}, "1"),
        ({"nvidia.com/mig-3g.40gb": "1"}, {"talker": "1"}, "1"),
        ({"amd.com/gpu": "1"}, {}, "1"),
        ({"gpu.intel.com/xe": "1"}, {"GPU": "1"}, "1"),
        ({"example.com/nic": "1"}, {}, None),
    ],
)
def test_ray_and_its_autoscaler_know_the_gpus(
    helm: Path, devices: dict[str, str], ray: dict[str, str], gpus: str | None
) -> None:
    """Ray's autoscaler counts only limits whose name ends with "gpu". Without a count, it would never add a pod."""
    nodes: Object = {"gpuNodes": {"cluster": "ours", "labels": {"ours": {"pool": "gpu"}}}}
    found = of_group(helm, nodes, resources=amounts(**devices), rayResources=ray)
    assert found.get("resources", {}) == (ray | {"GPU": gpus} if gpus else ray)
    assert mapping(found, "template", "spec").get("nodeSelector") == ({"pool": "gpu"} if gpus else None)
    (container,) = items(found, "template", "spec", "containers")
    assert at(container, "resources", "limits") == amounts(**devices)["limits"]


@ALL
def test_no_container_sees_gpus_that_it_did_not_request(helm: Path, combination: Combination) -> None:
    """The image says NVIDIA_VISIBLE_DEVICES=all, and a value here would hide what the device plugin gives."""
    objects = render(combination, helm)
    for pod in pods(objects):
        for container in items(pod, "containers"):
            resources = mapping(container, "resources")
            asks = "claims" in resources or "nvidia.com/gpu" in mapping(resources, "limits")
            assert environment(container).get("NVIDIA_VISIBLE_DEVICES") == (None if asks else "void")


@pytest.mark.parametrize(("replicas", "available"), [(1, None), (2, 1), (5, 4)])
def test_a_budget_leaves_a_pod_to_evict(helm: Path, replicas: int, available: int | None) -> None:
    group = GROUP | {"minReplicas": replicas, "maxReplicas": 9}
    options: Object = {"workerGroups": [group]}
    budgets = of_kind(render(Combination(options=json.dumps(options)), helm), "PodDisruptionBudget")
    assert [at(one, "spec", "minAvailable") for one in budgets] == ([available] if available else [])
    assert {at(one, "spec", "unhealthyPodEvictionPolicy") for one in budgets} <= {"AlwaysAllow"}
    single = options | {"podDisruptionBudget": {"blockSinglePods": True}}
    assert len(of_kind(render(Combination(options=json.dumps(single)), helm), "PodDisruptionBudget")) == 2


def test_autoscalers_of_nodes_leave_the_head_alone(helm: Path) -> None:
    annotations = mapping(templates(render(Combination(), helm))["head"], "metadata", "annotations")
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def rules(policy: Object, direction: str) -> list[Object]:
    return items(policy, "spec", direction) if direction in mapping(policy, "spec") else []


def ports_out(objects: tuple[Object, ...], name: str) -> set[object]:
    """Return the ports that the policy of the name opens for outgoing traffic."""
    (policy,) = [one for one in of_kind(objects, "NetworkPolicy") if str(at(one, "metadata", "name")).endswith(name)]
    return {port["port"] for rule in rules(policy, "egress") if "ports" in rule for port in items(rule, "ports")}


def test_one_value_gives_the_head_a_redis(helm: Path) -> None:
    objects = render(Combination(options=json.dumps({"gcsFaultTolerance": {"enabled": True}})), helm)
    (service,) = of_kind(objects, "Service")
    (redis,) = of_kind(objects, "StatefulSet")
    options = mapping(ray_service(objects), "spec", "rayClusterConfig", "gcsFaultToleranceOptions")
    assert options == {"redisAddress": f"{at(service, 'metadata', 'name')}:{at(service, 'spec', 'ports', 0, 'port')}"}
    labels = mapping(redis, "spec", "template", "metadata", "labels")
    assert mapping(service, "spec", "selector").items() <= labels.items()
    assert ports_out(objects, "-redis") == set()


@pytest.mark.parametrize("combination", [FULL, OPENED], ids=["external", "ours"])
def test_the_head_and_its_cleaner_reach_the_redis(helm: Path, combination: Combination) -> None:
    objects = render(combination, helm)
    options = mapping(ray_service(objects), "spec", "rayClusterConfig", "gcsFaultToleranceOptions")
    for name in ("-head", "-redis-cleanup"):
        assert int(str(options["redisAddress"]).rpartition(":")[2]) in ports_out(objects, name)


def test_the_redis_is_confined_and_its_data_survives_it(helm: Path) -> None:
    (redis,) = of_kind(render(OPENED, helm), "StatefulSet")
    spec = mapping(redis, "spec", "template", "spec")
    (container,) = items(spec, "containers")
    worker = mapping(templates(render(OPENED, helm))["speech"], "spec")
    for key in ("securityContext", "automountServiceAccountToken", "serviceAccountName"):
        assert spec[key] == worker[key]
    assert container["securityContext"] == items(worker, "containers")[0]["securityContext"]
    (claim,) = items(redis, "spec", "volumeClaimTemplates")
    assert {mount["name"] for mount in items(container, "volumeMounts")} == {at(claim, "metadata", "name")}
    assert at(claim, "spec", "storageClassName") == "fast"
    secret = at(items(container, "env")[0], "valueFrom", "secretKeyRef")
    options = mapping(ray_service(render(OPENED, helm)), "spec", "rayClusterConfig", "gcsFaultToleranceOptions")
    assert spec["nodeSelector"] == {"pool": "redis"}, "a change of the head's fields would restart it"
    assert secret == at(options, "redisPassword", "valueFrom", "secretKeyRef") == {"name": "redis", "key": "password"}


@ALL
def test_what_leaves_the_cluster_may_have_any_address(helm: Path, combination: Combination) -> None:
    for policy in of_kind(render(combination, helm), "NetworkPolicy"):
        for rule in rules(policy, "egress"):
            peers = items(rule, "to") if "to" in rule else []
            blocks = [mapping(peer, "ipBlock") for peer in peers if "ipBlock" in peer]
            assert {block["cidr"] for block in blocks} in (set(), {"0.0.0.0/0", "::/0"})
            assert not blocks or {"namespaceSelector": {}} in peers, "Cilium matches no pod by its address"
            for block in blocks:
                around = ip_network(str(block["cidr"]))
                excepted = block.get("except", [])
                assert isinstance(excepted, list)
                for inside in excepted:
                    assert ip_network(inside).version == around.version, "the API server refuses other addresses"


@ALL
def test_names_are_found_on_openshift(helm: Path, combination: Combination) -> None:
    """OpenShift's DNS pods listen on 5353, and policies see the ports of pods."""
    objects = render(combination, helm)
    for policy in of_kind(objects, "NetworkPolicy"):
        assert not rules(policy, "egress") or {53, 5353} <= ports_out(objects, str(at(policy, "metadata", "name")))


@ALL
def test_downloaded_models_are_bounded_and_requested(helm: Path, combination: Combination) -> None:
    """GKE's Autopilot gives a pod 1 GiB if it requests nothing, and evicts a pod that fills its node's disk."""
    for group, template in templates(render(combination, helm)).items():
        spec = mapping(template, "spec")
        volumes = {str(one["name"]): one for one in items(spec, "volumes")}
        if group == "head" or "emptyDir" not in volumes["models"]:
            continue
        bound = at(volumes["models"], "emptyDir", "sizeLimit")
        if "download-models" in [
            one["name"] for one in (items(spec, "initContainers") if "initContainers" in spec else [])
        ]:
            assert at(spec, "containers", 0, "resources", "requests", "ephemeral-storage") == bound


def test_a_pod_requests_no_more_disk_than_its_limit(helm: Path) -> None:
    """The API server refuses a pod whose request is above its limit."""
    hub: Object = {"app": {"models": [{"name": "m", "checkpoint": "owner/model", "type": "base"}]}}
    resources = {"requests": amounts()["requests"], "limits": {"cpu": "2", "memory": "6Gi", "ephemeral-storage": "8Gi"}}
    found = of_group(helm, hub, resources=resources)
    assert at(found, "template", "spec", "containers", 0, "resources", "requests", "ephemeral-storage") == "8Gi"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workerGroups": [GROUP | {"priorityClass": "a"}]}, "priorityClass"),
        ({"workerGroups": [GROUP | {"podLabels": {"a": 1}}]}, "workerGroups/0/podLabels/a"),
        ({"workerGroups": [GROUP | {"resources": amounts(gpu="1")}]}, "gpu"),
        ({"workerGroups": [GROUP | {"resources": amounts(**{"nvidia.com/gpu": "one"})}]}, "limits/nvidia.com~1gpu"),
        ({"workerGroups": [GROUP | {"resourceClaims": [{"name": "gpu"}]}]}, "rayResources.GPU"),
        ({"workerGroups": [GROUP | {"env": {"1A": "x"}}]}, "1A"),
        ({"head": {"podLabels": {"app.kubernetes.io/component": "x"}}}, "podLabels: app.kubernetes.io/component"),
        ({"test": {"podLabels": {"ray.io/node-type": "head"}}}, "podLabels: ray.io/node-type"),
        ({"rayServiceLabels": {"helm.sh/chart": "x"}}, "rayServiceLabels: helm.sh/chart"),
        (
            {"podMonitor": {"labels": {"app.kubernetes.io/version": "1"}}},
            "podMonitor.labels: app.kubernetes.io/version",
        ),
        (
            {"prometheusRule": {"labels": {"app.kubernetes.io/name": "x"}}},
            "prometheusRule.labels: app.kubernetes.io/name",
        ),
        ({"dashboard": {"labels": {"app.kubernetes.io/name": "x"}}}, "dashboard.labels: app.kubernetes.io/name"),
        ({"gcsFaultTolerance": {"redisAddress": "redis:6379"}}, "set gcsFaultTolerance.enabled"),
    ],
)
def test_what_no_pod_can_have_is_refused_by_name(helm: Path, values: Object, named: str) -> None:
    with pytest.raises(Refused) as refused:
        render(Combination(options=json.dumps(values)), helm)
    assert named in str(refused.value)
