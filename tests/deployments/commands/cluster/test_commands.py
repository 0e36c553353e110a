"""The commands status, url, logs, rollout and delete: their output, their effects and their errors."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import QWEN_TTS, Run, assert_refused, assert_said, write_kubeconfig
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.manifests import claim, ray_service, settings, text_of
from tests.deployments.commands.cluster.operator import Operator

SOON = ("--timeout", "20")
COMMANDS = ("status", "wait", "logs", "url", "rollout", "delete")


@pytest.fixture
def active(run: Run, server: ApiServer, operator: Operator) -> str:
    """Start a service with settings and a claim, and return the name of its cluster."""
    assert_said(run("apply", "-", input=text_of(ray_service(), settings(), claim())))
    server.wait_until(lambda: operator.settled() is not None)
    return active_cluster(server)


def active_cluster(server: ApiServer) -> str:
    return str(server.find("RayService", "qwen-tts")["status"]["activeServiceStatus"]["rayClusterName"])


def test_status(run: Run, active: str) -> None:
    assert_said(
        run("status"),
        "RayService qwen-tts: ready",
        "condition    Ready=True NonZeroServeEndpoints: Number of serve endpoints",
        f"active       {active}\n",
        "endpoints    2",
        "application  qwen-tts RUNNING",
        "deployment Talker HEALTHY",
        f"pods         head 1/1 ready, cluster {active}",
        f"pods         talker 2/2 ready, cluster {active}",
    )
    assert run("status", "qwen-tts").stdout == run("status").stdout


def test_rollout_moves_to_a_new_cluster_and_the_next_apply_leaves_it(run: Run, server: ApiServer, active: str) -> None:
    assert_said(run("rollout", *SOON), f"a new cluster is to replace {active}", "RayService qwen-tts: ready")
    new = active_cluster(server)
    assert new != active
    assert {pod["metadata"]["labels"]["ray.io/cluster"] for pod in server.find_all("Pod")} == {new}
    assert_said(run("apply", "-", input=text_of(ray_service())), "RayService qwen-tts unchanged")
    assert active_cluster(server) == new


def test_rollout_refuses_what_would_not_happen(run: Run, server: ApiServer, active: str, operator: Operator) -> None:
    operator.stopped = True
    assert_said(run("rollout", "--no-wait"))
    service = ray_service()
    service["spec"]["upgradeStrategy"] = {"type": "None"}
    run("apply", "-", input=text_of(service))
    assert_refused(run("rollout"), "spec.upgradeStrategy.type None")
    status = server.find("RayService", "qwen-tts")
    pending = {"status": status["status"] | {"pendingServiceStatus": {"rayClusterName": "qwen-tts-00000"}}}
    server.replace(status | pending, "kuberay-operator", "status")
    assert_refused(run("rollout"), f"cluster qwen-tts-00000 is to replace {active}")
    server.create(ray_service("other"))
    assert_refused(run("rollout", "other"), "serves nothing yet")


def test_rollout_says_when_no_new_cluster_is_made(run: Run, server: ApiServer, active: str, operator: Operator) -> None:
    operator.replaces = False
    assert_refused(run("rollout", "--stuck-after", "0.5"), "KubeRay creates no new cluster", "ENABLE_ZERO_DOWNTIME")
    assert active_cluster(server) == active


def test_logs_of_all_and_of_a_group(run: Run, active: str) -> None:
    head, talker = f"{active}-headgroup-0", f"{active}-talker-"
    assert_said(run("logs"), f"[{head}] ray start", f"[{talker}0] ray start", f"[{talker}1] ray start")
    assert talker not in run("logs", "--group", "head").stdout
    assert head not in run("logs", "--group", "talker").stdout
    assert_refused(run("logs", "--group", "encoder"), "no pods of encoder; there are pods of: head, talker")


def test_the_tail_of_logs(run: Run, server: ApiServer, active: str) -> None:
    server.logs[f"{active}-headgroup-0", "ray-head", False] = [f"line {n}" for n in range(10)]
    result = run("logs", "--group", "head", "--tail", "2")
    assert [line.split("] ")[1] for line in result.stdout.splitlines()] == ["line 8", "line 9"]


def test_a_pod_without_a_log_is_said(run: Run, server: ApiServer, active: str) -> None:
    del server.logs[f"{active}-talker-0", "ray-worker", False]
    assert_said(
        run("logs"), f"[{active}-talker-0] (Could not get pods", "is waiting to start", f"[{active}-talker-1] ray"
    )


def test_logs_are_followed_until_ctrl_c(server: ApiServer, kubeconfig: Path, active: str) -> None:
    command = [*QWEN_TTS, "cluster", "logs", "-f", "--kubeconfig", str(kubeconfig)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        first = {process.stdout.readline() for _ in range(3)}
        assert len(first) == 3
        server.logs[f"{active}-talker-1", "ray-worker", False].append("another line")
        assert process.stdout.readline() == f"[{active}-talker-1] another line\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_logs_end_when_the_pods_are_gone(server: ApiServer, kubeconfig: Path, active: str) -> None:
    for pod in server.find_all("Pod"):
        if not pod["metadata"]["name"].endswith("headgroup-0"):
            server.delete("Pod", pod["metadata"]["name"])
    command = [*QWEN_TTS, "cluster", "logs", "-f", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server.wait_for_request("follow=true")
        server.delete("RayService", "qwen-tts")
        output = process.communicate()[0]
    assert output == f"[{active}-headgroup-0] ray start: headgroup of {active}\n"
    assert process.returncode == 0


def test_url_without_a_way_from_outside(run: Run, kubeconfig: Path, active: str) -> None:
    forward = f"kubectl --kubeconfig={kubeconfig} --namespace=default port-forward service/qwen-tts-serve-svc 8000:8000"
    assert_said(run("url"), "In the cluster: http://qwen-tts-serve-svc.default.svc:8000\n", forward)


def ingress(host: str | None, encrypted: bool) -> Json:
    backend = {"service": {"name": "qwen-tts-serve-svc", "port": {"number": 8000}}}
    rule: Json = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: Json = {"rules": [rule | ({"host": host} if host else {})]}
    spec |= {"tls": [{"hosts": [host], "secretName": "tls"}]} if encrypted else {}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": spec}
    return body | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}


ROUTE: Json = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r"},
    "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "qwen-tts-serve-svc", "port": 8000}]}]},
}
GATEWAY: Json = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "g"},
    "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 8080}]},
    "status": {"addresses": [{"value": "203.0.113.9"}]},
}


@pytest.mark.parametrize(
    ("objects", "address"),
    [
        ([ingress("speech.example.com", True)], "https://speech.example.com"),
        ([ingress("speech.example.com", False)], "http://speech.example.com"),
        ([ingress(None, False)], "http://203.0.113.7"),
        ([ROUTE, GATEWAY], "http://203.0.113.9:8080"),
    ],
)
def test_url_from_outside(run: Run, server: ApiServer, active: str, objects: list[Json], address: str) -> None:
    for body in objects:
        server.create(body)
    result = run("url")
    assert_said(result, f"From outside:   {address}\n")
    assert "port-forward" not in result.stdout


def test_url_of_a_load_balancer(run: Run, server: ApiServer, active: str) -> None:
    service = server.find("Service", "qwen-tts-serve-svc")
    server.replace(service | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}}, "cloud", "status")
    assert_said(run("url"), "From outside:   http://203.0.113.8:8000\n")


def test_url_before_there_is_a_service(run: Run, server: ApiServer) -> None:
    server.create(ray_service())
    assert_refused(run("url"), "has no Service qwen-tts-serve-svc yet")


def test_delete_takes_what_belongs_to_it_and_leaves_the_data(run: Run, server: ApiServer, active: str) -> None:
    server.create(settings("of-others") | {"metadata": {"name": "of-others"}})
    result = run("delete", "--yes", "--wait", *SOON)
    assert_said(
        result, "  RayService qwen-tts\n", "  ConfigMap qwen-tts-settings\n", "voices stays, with its data", "Deleted"
    )
    assert server.find_all("RayService") == server.find_all("Pod") == server.find_all("RayCluster") == []
    assert [found["metadata"]["name"] for found in server.find_all("ConfigMap")] == ["of-others"]
    assert len(server.find_all("PersistentVolumeClaim")) == 1


def test_delete_asks_first(run: Run, server: ApiServer, active: str) -> None:
    for answer in ("n\n", ""):
        result = run("delete", input=answer)
        assert result.exit_code == 1
        assert "Delete these?" in result.stdout
    assert server.find("RayService", "qwen-tts")


def test_delete_leaves_helm_its_releases(run: Run, server: ApiServer) -> None:
    service = ray_service()
    service["metadata"]["annotations"] = {"meta.helm.sh/release-name": "speech"}
    server.create(service)
    assert_refused(run("delete", "--yes"), "helm uninstall speech -n default")
    assert server.find("RayService", "qwen-tts")


def test_delete_without_an_operator_says_what_it_waits_for(run: Run, operator: Operator, active: str) -> None:
    operator.stopped = True
    assert_refused(
        run("delete", "--yes", "--wait", "--timeout", "1"), "is not gone after 1 s: 3 pods are left", "finalizer"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_which_service_is_meant_must_be_clear(run: Run, server: ApiServer, command: str) -> None:
    assert_refused(run(command), "There is no RayService in namespace default")
    assert_refused(run(command, "-n", "nowhere"), "There is no namespace nowhere")
    server.create(ray_service("one"))
    assert_refused(run(command, "tow"), "There is no RayService tow; namespace default has: one")
    server.create(ray_service("two"))
    assert_refused(run(command), "Name one of the RayServices; namespace default has: one, two")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_that_does_not_answer_is_said(run: Run, tmp_path: Path, command: str) -> None:
    file = write_kubeconfig(tmp_path / "dead", "https://127.0.0.1:9", b"")
    assert_refused(
        run(command, "--kubeconfig", file), "No answer from the Kubernetes API at https://127.0.0.1:9", "refused"
    )


def test_a_token_that_is_not_accepted_is_said(run: Run, server: ApiServer, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "stranger", server.url, server.authority_pem, token="another")
    assert_refused(run("status", "--kubeconfig", file), f"{server.url} does not accept these credentials (401)")


@pytest.mark.parametrize(
    ("forbidden", "command", "words"),
    [
        (("list", "rayservices"), "status", "Not allowed to list rayservices in namespace default (403)"),
        (("list", "pods"), "status", "Not allowed to list pods in namespace default (403)"),
        (("patch", "rayservices"), "rollout", "Not allowed to patch rayservices qwen-tts in namespace default (403)"),
        (("delete", "configmaps"), "delete", "Not allowed to delete configmaps qwen-tts-settings in namespace default"),
        (("watch", "rayservices"), "wait", "Not allowed to watch rayservices in namespace default (403)"),
    ],
)
def test_what_is_forbidden_is_said(
    run: Run, server: ApiServer, operator: Operator, active: str, forbidden: tuple[str, str], command: str, words: str
) -> None:
    operator.stopped = True
    if command == "wait":
        run("rollout", "--no-wait")
    server.forbidden.add(forbidden)
    arguments = ["--yes"] if command == "delete" else []
    assert_refused(run(command, *arguments), words, 'User "tester" cannot')


def test_a_context_that_is_not_there_is_said(run: Run) -> None:
    assert_refused(run("status", "--context", "prod"), "has no context prod; it has: speech, tests")


NOT_BASE64 = """\
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:9", certificate-authority-data: abc}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.mark.parametrize("text", ["", "a: [", "apiVersion: v1\nkind: Config\n", "- a\n", NOT_BASE64])
def test_a_kubeconfig_that_is_none_is_said(run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text, encoding="utf-8")
    assert_refused(run("status", "--kubeconfig", file), "The kubeconfig cannot be used")


def test_something_else_than_kubernetes_is_said(run: Run, server: ApiServer, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "plain", server.url.replace("https", "http"), server.authority_pem)
    assert_refused(run("status", "--kubeconfig", file), "Kubernetes API")
