"""The real kubectl on the API server of these tests, and beside `qwen-tts cluster`."""

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import Kubectl, Run, assert_refused, assert_said
from tests.deployments.commands.cluster.manifests import ray_service, settings, text_of
from tests.deployments.commands.cluster.operator import Operator


def test_kubectl_applies_changes_reads_and_deletes(kubectl: Kubectl, server: ApiServer, operator: Operator) -> None:
    text = text_of(ray_service(), settings())
    done = kubectl("apply", "-f", "-", input=text)
    assert done.stdout == "rayservice.ray.io/qwen-tts created\nconfigmap/qwen-tts-settings created\n", done.stderr
    kubectl("wait", "--for=condition=Ready", "rayservice/qwen-tts", "--timeout=120s")
    done = kubectl("apply", "-f", "-", input=text)
    assert done.stdout == "rayservice.ray.io/qwen-tts unchanged\nconfigmap/qwen-tts-settings unchanged\n", done.stderr
    done = kubectl("apply", "-f", "-", input=text_of(ray_service(replicas=3, image="registry.example/b:1"), settings()))
    assert done.stdout == "rayservice.ray.io/qwen-tts configured\nconfigmap/qwen-tts-settings unchanged\n", done.stderr
    kubectl("wait", "--for=jsonpath={.status.observedGeneration}=2", "rayservice/qwen-tts", "--timeout=120s")
    done = kubectl("get", "pods", "-l", "ray.io/group=talker", "-o", "name")
    assert len(done.stdout.splitlines()) == 3, done.stderr
    assert "ray start: talker" in kubectl("logs", done.stdout.splitlines()[0]).stdout
    done = kubectl("delete", "rayservice", "qwen-tts")
    assert 'rayservice.ray.io "qwen-tts" deleted' in done.stdout, done.stderr
    assert server.find_all("RayService") == server.find_all("Pod") == []


def test_a_misspelt_field_is_refused(kubectl: Kubectl, server: ApiServer) -> None:
    service = ray_service()
    service["spec"]["serveConfig"] = service["spec"].pop("serveConfigV2")
    for how in ((), ("--server-side",)):
        done = kubectl("apply", *how, "-f", "-", input=text_of(service))
        assert done.returncode == 1
        assert 'unknown field "spec.serveConfig"' in done.stderr
    assert server.find_all("RayService") == []


def test_a_dry_run_changes_nothing(kubectl: Kubectl, server: ApiServer) -> None:
    done = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", input=text_of(settings()))
    assert done.stdout == "configmap/qwen-tts-settings serverside-applied (server dry run)\n", done.stderr
    assert server.find_all("ConfigMap") == []


def test_kubectl_and_our_apply_see_each_other(run: Run, kubectl: Kubectl) -> None:
    assert_said(run("apply", "-", input=text_of(settings())), "created")
    done = kubectl("apply", "--server-side", "-f", "-", input=text_of(settings(text="theirs")))
    assert done.returncode == 1
    assert 'conflict with "qwen-tts"' in done.stderr
    done = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text_of(settings(text="theirs")))
    assert done.returncode == 0, done.stderr
    assert_refused(run("apply", "-", input=text_of(settings())), 'conflict with "kubectl"', ".data.settings.yaml")
    assert_said(run("apply", "-", "--force-conflicts", input=text_of(settings())), "configured")


def test_what_kubectl_has_applied_our_commands_take_over(run: Run, kubectl: Kubectl, operator: Operator) -> None:
    kubectl("apply", "-f", "-", input=text_of(ray_service()))
    assert_said(run("wait", "--timeout", "20"), "ready")
    assert_said(run("apply", "-", input=text_of(ray_service())), "RayService qwen-tts configured")
    assert_said(run("apply", "-", input=text_of(ray_service())), "RayService qwen-tts unchanged")
