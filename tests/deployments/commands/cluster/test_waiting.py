"""Waiting for a service until it is ready, or until the reason is known why it will not be."""

import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest

from deployments.commands.cluster import waiting
from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.clock import SettledClock
from tests.deployments.commands.cluster.conftest import QWEN_TTS, Run, assert_refused, assert_said, write_kubeconfig
from tests.deployments.commands.cluster.manifests import LABELS, SERVE_CONFIG, ray_service, text_of
from tests.deployments.commands.cluster.operator import Operator
from tests.deployments.commands.cluster.starts import BROKEN, Start

# By the tests' clock, which stands still while the operator is at work.
SOON = ("--timeout", "20", "--stuck-after", "0.5")


def test_apply_waits_until_the_service_is_ready(run: Run, operator: Operator) -> None:
    result = run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    assert_said(result, "RayService qwen-tts created", "RayService qwen-tts: ready")
    assert "pods head 1/1, talker 2/2; application qwen-tts RUNNING, 2/2 deployments healthy" in result.stderr


def test_a_changed_application_is_waited_for_in_place(run: Run, server: ApiServer, operator: Operator) -> None:
    run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    active = server.find("RayService", "qwen-tts")["status"]["activeServiceStatus"]["rayClusterName"]
    changed = ray_service()
    changed["spec"]["serveConfigV2"] = SERVE_CONFIG + "    args: {}\n"
    assert_said(run("apply", "-", "--wait", *SOON, input=text_of(changed)), "configured", "ready")
    status = server.find("RayService", "qwen-tts")["status"]
    assert status["observedGeneration"] == 2
    assert status["activeServiceStatus"]["rayClusterName"] == active


def test_kuberay_ignores_numbers_of_replicas(run: Run, server: ApiServer, operator: Operator) -> None:
    run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    result = run("apply", "-", "--wait", *SOON, input=text_of(ray_service(replicas=3, most=9)))
    assert_said(result, "configured", "ready", "Note: Group talker: the running cluster was made with maxReplicas 4")
    assert_said(run("status"), "pods         talker 2/2 ready", "`qwen-tts cluster rollout` brings 9.")
    assert_said(run("rollout", *SOON), "ready")
    assert_said(run("status"), "pods         talker 3/3 ready")


def test_a_changed_cluster_is_waited_for(run: Run, server: ApiServer, operator: Operator) -> None:
    run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    active = server.find("RayService", "qwen-tts")["status"]["activeServiceStatus"]["rayClusterName"]
    image = "registry.example/qwen-tts:0.2"
    assert_said(run("apply", "-", "--wait", *SOON, input=text_of(ray_service(image=image))), "ready")
    status = server.find("RayService", "qwen-tts")["status"]
    assert status["activeServiceStatus"]["rayClusterName"] != active
    assert all(pod["spec"]["containers"][0]["image"] == image for pod in server.find_all("Pod"))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (
            Start.IMAGE_MISSING,
            ("cannot get the image registry.example/qwen-tts:0.1", "imagePullSecrets"),
        ),
        (
            Start.NO_GPU,
            ("(group talker) fits on no node", "No node has a GPU free", "the taint nvidia.com/gpu: present"),
        ),
        (Start.NO_CLAIM, ("unbound immediate PersistentVolumeClaims", "kubectl describe pvc voices")),
        (Start.NO_SECRET, ('FailedMount: MountVolume.SetUp failed: secret "keys" not found',)),
        (Start.CRASH, ("exit code 1, restarted 4 times", "| ValueError: no such checkpoint")),
        (Start.DEPLOYMENT_FAILS, (f"Deployment Talker is DEPLOY_FAILED: {BROKEN}",)),
        (Start.QUOTA, ("FailedToCreateHeadPod: Failed to create head Pod", "exceeded quota")),
        (Start.INVALID, ("KubeRay refuses the RayService: The RayService spec is invalid",)),
    ],
)
def test_what_holds_it_up_is_explained(run: Run, operator: Operator, start: Start, words: tuple[str, ...]) -> None:
    operator.start = start
    result = run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    assert_refused(result, "RayService qwen-tts is not ready, and for 0.5 s nothing has changed", *words)
    assert "deadline exceeded" not in result.output, "the first request to every dashboard, which is made again"
    assert_said(run("status"), "RayService qwen-tts: not ready", "What is wrong:", *words)


def test_a_failed_download_of_the_models_is_explained(run: Run, server: ApiServer, operator: Operator) -> None:
    operator.start = Start.NO_SECRET
    failed = {"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}
    metadata = {"name": "speech-models-1", "labels": LABELS | {"app.kubernetes.io/component": "model-cache"}}
    server.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": {"conditions": [failed]}})
    result = run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    words = (
        "job speech-models-1, which downloads the models, has failed: Job has reached",
        "delete job speech-models-1",
    )
    assert_refused(result, *words)
    server.forbidden.add(("list", "jobs"))
    assert "speech-models-1" not in run("status").output


def test_an_operator_that_does_nothing_is_named(run: Run, operator: Operator) -> None:
    operator.stopped = True
    result = run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    assert_refused(
        result,
        "The KubeRay operator has not acted on the RayService yet (generation 1, last seen none)",
        "kubectl get pods",
    )


def test_trouble_that_passes_is_waited_out(run: Run, operator: Operator) -> None:
    operator.start = Start.DEPLOYMENT_RECOVERS
    assert_said(run("apply", "-", "--wait", *SOON, input=text_of(ray_service())), "RayService qwen-tts: ready")


def test_time_runs_out(run: Run, operator: Operator) -> None:
    operator.start = Start.NO_GPU
    result = run("apply", "-", "--wait", "--timeout", "1", input=text_of(ray_service()))
    assert_refused(result, "is not ready after 1 s", "No node has a GPU free")


def test_an_upgrade_that_finds_no_gpu_says_that_it_needs_them_twice(run: Run, operator: Operator) -> None:
    run("apply", "-", "--wait", *SOON, input=text_of(ray_service()))
    operator.start = Start.NO_GPU
    result = run("rollout", *SOON)
    assert_refused(result, "No node has a GPU free", "needs its GPUs twice")
    assert_said(run("status"), "serving, being upgraded")


def test_a_server_that_goes_away_is_a_cause_like_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    monkeypatch.setattr(waiting, "time", SettledClock(lambda: 1 if gone.is_set() else None))
    with ApiServer() as other:
        other.create(ray_service())
        file = write_kubeconfig(tmp_path / "other", other.url, other.authority_pem)
        results = []
        command = threading.Thread(target=lambda: results.append(run("wait", "--kubeconfig", file, *SOON)))
        command.start()
        other.wait_for_request("watch=true")
    gone.set()
    command.join()
    assert_refused(results[0], f"No answer from the Kubernetes API at {other.url}")


def test_a_service_that_is_deleted_is_not_waited_for(run: Run, server: ApiServer) -> None:
    server.create(ray_service())
    results = []
    command = threading.Thread(target=lambda: results.append(run("wait")))
    command.start()
    server.wait_for_request("watch=true")
    server.delete("RayService", "qwen-tts")
    command.join()
    assert_refused(results[0], "RayService qwen-tts is gone")


def test_bars_are_shown_on_a_terminal(server: ApiServer, kubeconfig: Path, operator: Operator) -> None:
    server.create(ray_service())
    ours, theirs = pty.openpty()
    command = [*QWEN_TTS, "cluster", "wait", "--kubeconfig", str(kubeconfig)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=environment, text=True) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # raised when the other side closes the terminal
            pass
        output = process.communicate()[0]
    os.close(ours)
    assert process.returncode == 0
    assert output.startswith("RayService qwen-tts: ready")
    assert b"pods ready" in shown
    assert b"deployments healthy" in shown
