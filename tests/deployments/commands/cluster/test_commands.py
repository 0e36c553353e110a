"""The commands status and rollout: their output, their effects and their errors; and which service is meant."""

from pathlib import Path

import pytest

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import Run, assert_refused, assert_said, write_kubeconfig
from tests.deployments.commands.cluster.manifests import ray_service, settings, text_of
from tests.deployments.commands.cluster.operator import Operator
from tests.deployments.commands.cluster.starts import Start

SOON = ("--timeout", "20")
COMMANDS = ("status", "wait", "rollout")


@pytest.fixture
def active(run: Run, server: ApiServer, operator: Operator) -> str:
    """Start a service with settings, and return the name of its cluster."""
    assert_said(run("apply", "-", input=text_of(ray_service(), settings())))
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


def test_rollout_replaces_a_cluster_that_cannot_start_as_it_was_made(
    run: Run, server: ApiServer, operator: Operator
) -> None:
    """A toleration is added to the file: KubeRay gives it to no cluster that exists."""
    operator.start = Start.NO_GPU
    service = ray_service()
    run("apply", "-", input=text_of(service))
    server.wait_until(lambda: operator.settled() is not None)
    assert_refused(run("rollout"), "serves nothing yet")
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    group["template"]["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert_said(run("apply", "-", input=text_of(service)), "configured")
    server.wait_until(lambda: operator.settled() is not None)
    assert_said(run("status"), "the running cluster was made without the toleration for nvidia.com/gpu; `qwen-tts")
    operator.start = Start.WELL
    assert_said(run("rollout", *SOON), "a new cluster is to replace qwen-tts-", "RayService qwen-tts: ready")
    (cluster,) = server.find_all("RayCluster")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["tolerations"]


def test_rollout_says_when_no_new_cluster_is_made(run: Run, server: ApiServer, active: str, operator: Operator) -> None:
    operator.replaces = False
    assert_refused(run("rollout", "--stuck-after", "0.5"), "KubeRay creates no new cluster", "ENABLE_ZERO_DOWNTIME")
    assert active_cluster(server) == active


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
    assert_refused(run(command), words, 'User "tester" cannot')


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
