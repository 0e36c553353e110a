"""`qwen-tts cluster apply`: its changes, and that nothing changes if any object cannot be applied."""

from pathlib import Path

import pytest

from deployments.commands.cluster.api import INSTALL_OPERATOR
from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import Run, assert_refused, assert_said
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.manifests import namespace, ray_service, settings, text_of
from tests.deployments.commands.cluster.operator import Operator

HOOK = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test", "annotations": {"helm.sh/hook": "test"}}}


def written(server: ApiServer) -> list[str]:
    """Return the requests that changed an object, as plural/name."""
    changing = [r for r in server.requests if not r.startswith("GET") and "dryRun=" not in r]
    return ["/".join(request.split("?")[0].split("/")[-2:]) for request in changing]


def test_apply_says_what_it_did(run: Run, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text_of(ray_service(), settings()), encoding="utf-8")
    assert_said(run("apply", file), "ConfigMap qwen-tts-settings created", "RayService qwen-tts created")
    assert_said(run("apply", file), "ConfigMap qwen-tts-settings unchanged", "RayService qwen-tts unchanged")
    file.write_text(text_of(ray_service(replicas=3), settings()), encoding="utf-8")
    assert_said(run("apply", file), "ConfigMap qwen-tts-settings unchanged", "RayService qwen-tts configured")
    found = server.find("RayService", "qwen-tts")
    assert found["metadata"]["generation"] == 2
    assert found["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] == 3


def test_what_is_left_out_of_a_later_file_goes(run: Run, server: ApiServer) -> None:
    both = settings()
    both["data"]["more"] = "b"
    run("apply", "-", input=text_of(both))
    assert_said(run("apply", "-", input=text_of(settings())), "ConfigMap qwen-tts-settings configured")
    assert server.find("ConfigMap", "qwen-tts-settings")["data"] == {"settings.yaml": "a"}


def test_a_namespace_comes_first_and_the_service_last(run: Run, server: ApiServer) -> None:
    result = run("apply", "-", "-n", "speech", input=text_of(ray_service(), settings(), namespace("speech")))
    assert_said(result, "Namespace speech created")
    assert written(server) == ["namespaces/speech", "configmaps/qwen-tts-settings", "rayservices/qwen-tts"]
    assert server.find("RayService", "qwen-tts", "speech")["metadata"]["namespace"] == "speech"


def test_the_namespace_is_that_of_the_context(run: Run, server: ApiServer) -> None:
    server.create(namespace("speech"), "")
    assert_said(run("apply", "-", "--context", "speech", input=text_of(settings())), "created")
    assert server.find("ConfigMap", "qwen-tts-settings", "speech")


def test_hooks_of_helm_are_left_out(run: Run, server: ApiServer) -> None:
    assert_said(run("apply", "-", input=text_of(HOOK, settings())), "Pod test left out: a Helm hook (test)")
    assert written(server) == ["configmaps/qwen-tts-settings"]


def test_conflicts_name_the_other_manager(run: Run, server: ApiServer) -> None:
    run("apply", "-", input=text_of(ray_service(), settings()))
    edited = ray_service(image="registry.example/other:1")
    edited["metadata"]["resourceVersion"] = server.find("RayService", "qwen-tts")["metadata"]["resourceVersion"]
    server.replace(edited, "kubectl-edit")
    before = len(written(server))
    again = text_of(ray_service(), settings(text="new"))
    result = run("apply", "-", input=again)
    assert_refused(result, 'conflict with "kubectl-edit"', ".spec.rayClusterConfig", "nothing was changed", "--force")
    assert len(written(server)) == before
    assert_said(run("apply", "-", "--force-conflicts", input=again), "RayService qwen-tts configured")
    assert_said(run("apply", "-", input=again), "RayService qwen-tts unchanged")


def test_fields_of_the_operator_are_taken_over(run: Run, server: ApiServer, operator: Operator) -> None:
    """KubeRay owns the groups of a service that was applied without scaleStrategy, but has changed nothing in them."""
    old = ray_service()
    del old["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["scaleStrategy"]
    run("apply", "-", input=text_of(old))
    server.wait_until(lambda: operator.settled() is not None)
    owners = [entry["manager"] for entry in server.find("RayService", "qwen-tts")["metadata"]["managedFields"]]
    assert "kuberay-operator" in owners
    service = ray_service(image="registry.example/qwen-tts:0.2")
    assert_said(run("apply", "-", input=text_of(service)), "RayService qwen-tts configured")
    server.wait_until(lambda: operator.settled() is not None)
    assert_said(run("apply", "-", input=text_of(service)), "RayService qwen-tts unchanged")


def test_the_operator_owns_nothing_that_a_file_with_scale_strategies_sets(
    run: Run, server: ApiServer, operator: Operator
) -> None:
    run("apply", "-", input=text_of(ray_service()))
    server.wait_until(lambda: operator.settled() is not None)
    entries = server.find("RayService", "qwen-tts")["metadata"]["managedFields"]
    (of_operator,) = [e for e in entries if e["manager"] == "kuberay-operator" and e.get("subresource") != "status"]
    assert of_operator["fieldsV1"] == {"f:metadata": {"f:finalizers": {}}}
    assert_said(run("apply", "-", input=text_of(ray_service())), "RayService qwen-tts unchanged")


def test_the_server_refuses_a_misspelt_field_before_anything_changes(run: Run, server: ApiServer) -> None:
    service = ray_service()
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1
    assert_refused(
        run("apply", "-", input=text_of(settings(), service)), 'unknown field "spec.rayCluster', "minReplica"
    )
    assert written(server) == []


def test_the_server_refuses_a_wrong_type(run: Run, server: ApiServer) -> None:
    service = ray_service()
    service["spec"]["suspend"] = "no"
    assert_refused(run("apply", "-", input=text_of(service)), "spec.suspend", "boolean")
    assert written(server) == []


def unnamed() -> Json:
    body = settings()
    del body["metadata"]["name"]
    return body


def without_kind() -> Json:
    return {key: value for key, value in settings().items() if key != "kind"}


BROKEN_SERVE_CONFIG = text_of(ray_service()).replace("proxy_location: EveryNode", "proxy_location: [")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\n", 2, "not YAML"),
        ("---\n# nothing\n", None, "holds no objects"),
        ("- a\n", 1, "an object is a mapping"),
        (text_of(settings(), without_kind()), 12, "kind is missing"),
        (text_of(unnamed()), 1, "metadata.name of this ConfigMap is missing"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nkind: Secret\n", 4, "kind is given twice"),
        (text_of(settings(), settings()), 12, "is in line 1 already"),
        (
            text_of(ray_service()).replace("proxy_location: EveryNode", "proxy_location: ["),
            1,
            "serveConfigV2 is not YAML",
        ),
        (text_of(settings() | {"kind": "ConfigMop"}), 1, "does not know the kind ConfigMop of v1"),
        (text_of(settings() | {"apiVersion": "v9"}), 1, "does not know the kind ConfigMap of v9"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(
    run: Run, server: ApiServer, text: str, line: int | None, words: str
) -> None:
    assert_refused(run("apply", "-", input=text), words, "" if line is None else f"standard input:{line}:")
    assert written(server) == []


def test_all_faults_of_a_file_are_told(run: Run) -> None:
    result = run("apply", "-", input=text_of(unnamed(), without_kind()))
    assert_refused(result, "metadata.name", "kind is missing")


def test_another_namespace_than_the_given_is_refused(run: Run, server: ApiServer) -> None:
    body = settings()
    body["metadata"]["namespace"] = "elsewhere"
    assert_refused(run("apply", "-", "-n", "default", input=text_of(body)), "for namespace elsewhere, not for default")


def test_a_missing_namespace_is_said(run: Run) -> None:
    assert_refused(run("apply", "-", "-n", "nowhere", input=text_of(settings())), "kubectl create namespace nowhere")


def test_a_missing_file_is_said(run: Run) -> None:
    result = run("apply", "no-such.yaml")
    assert result.exit_code == 2
    assert "no-such.yaml" in result.stderr


def test_dates_stay_text(run: Run, server: ApiServer) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {made: 2026-11-25}}\n"
    assert_said(run("apply", "-", input=text), "created")
    assert server.find("ConfigMap", "a")["metadata"]["annotations"] == {"made": "2026-11-25"}


def test_empty_annotations_and_labels_are_accepted(run: Run, server: ApiServer) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: , labels: }\n"
    assert_said(run("apply", "-", input=text), "ConfigMap a created")


@pytest.mark.parametrize("kuberay", [False])
def test_without_the_operator_the_way_to_install_it_is_said(run: Run, server: ApiServer) -> None:
    assert_refused(run("apply", "-", input=text_of(settings(), ray_service())), INSTALL_OPERATOR)
    assert written(server) == []
    assert_refused(run("status"), INSTALL_OPERATOR)
