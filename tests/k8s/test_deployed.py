"""The Serve config of the cpu-demo preset, deployed as KubeRay does, and called as `helm test` does."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ray.serve.schema import ServeDeploySchema

from deployments.metrics import (
    EDGE_REFUSALS,
    ENCODER_BATCH,
    METRICS,
    PREFIX_ROWS_REUSED,
    PREFIXES_REUSED,
    RESUMED,
    UNDERRUN_SILENCE,
    UNDERRUNS,
)
from deployments.settings import AppArgs
from k8s.render.alerts import SERVE_METRICS
from tests.k8s.charts import (
    ALL,
    Combination,
    at,
    items,
    mapping,
    ray_service,
    render,
    serve_config,
    templates,
)
from tests.k8s.hearing import DEMO, run_test_pod
from tests.k8s.local_ray import LocalRay, free_ports, local_ray

HEALTHY_S = 150
# Metrics of events that need not have occurred, such as an underrun, or a prompt that came twice.
RARE = {
    metric.exported
    for metric in (
        UNDERRUNS,
        UNDERRUN_SILENCE,
        RESUMED,
        PREFIXES_REUSED,
        PREFIX_ROWS_REUSED,
        ENCODER_BATCH,
        EDGE_REFUSALS,
    )
}


@dataclass(frozen=True)
class Deployed:
    ray: LocalRay
    url: str


@ALL
def test_serve_and_the_application_take_the_config(helm: Path, combination: Combination) -> None:
    config = ServeDeploySchema.model_validate(serve_config(render(combination, helm)))
    (application,) = config.applications
    assert application.import_path == "deployments.app:build_app"
    AppArgs.model_validate(application.args)


@pytest.fixture(scope="module")
def deployed(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Return the exact config, except for the port, which is a free one of this machine."""
    objects = render(DEMO, helm)
    config = str(at(ray_service(objects), "spec", "serveConfigV2"))
    (port,) = free_ports(1)
    assert config.count("\n  port: 8000\n") == 1
    file = tmp_path_factory.mktemp("config") / "serve.yaml"
    file.write_text(config.replace("\n  port: 8000\n", f"\n  port: {port}\n"), encoding="utf-8")
    (group,) = items(ray_service(objects), "spec", "rayClusterConfig", "workerGroupSpecs")
    cpus = at(items(group, "template", "spec", "containers")[0], "resources", "limits", "cpu")
    store = at(group, "rayStartParams", "object-store-memory")
    with local_ray(int(str(cpus)), int(str(store))) as ray:
        said = ray.serve("deploy", str(file))
        assert said.returncode == 0, said.stdout + said.stderr
        wait_healthy(ray)
        yield Deployed(ray, f"http://127.0.0.1:{port}")


def wait_healthy(ray: LocalRay) -> None:
    deadline = time.monotonic() + HEALTHY_S
    while True:
        application = ray.ask("/api/serve/applications/").json()["applications"].get("qwen-tts", {})
        status = application.get("status")
        if status == "RUNNING":
            return
        assert status != "DEPLOY_FAILED", application["message"]
        assert time.monotonic() < deadline, application
        time.sleep(0.5)


def test_every_deployment_is_healthy(deployed: Deployed) -> None:
    application = deployed.ray.ask("/api/serve/applications/").json()["applications"]["qwen-tts"]
    states = {name: one["status"] for name, one in application["deployments"].items()}
    talkers = {f"talker-demo-{kind}" for kind in ("custom-voice", "base", "voice-design")}
    assert states == dict.fromkeys({"ingress", "codec-decoder", "codec-encoder", *talkers}, "HEALTHY")


def test_helm_test_hears_every_model(deployed: Deployed, helm: Path) -> None:
    """Run the script of the test pod with its own arguments, except for the address."""
    said = run_test_pod(helm, deployed.url)
    assert said.returncode == 0, said.stdout + said.stderr
    *heard, last = said.stdout.splitlines()
    assert last == "passed"
    assert [line.split(":")[0] for line in heard] == ["demo-custom-voice", "demo-base", "demo-voice-design"]


def test_the_probes_of_kuberay_and_the_chart_are_answered(deployed: Deployed, helm: Path) -> None:
    probe = mapping(items(templates(render(DEMO, helm))["speech"], "spec", "containers")[0], "startupProbe", "httpGet")
    assert probe["port"] == 52365, "Ray's default, which KubeRay does not change"
    for url in (
        f"http://127.0.0.1:{deployed.ray.agent}{probe['path']}",
        f"http://127.0.0.1:{deployed.ray.agent}/api/local_raylet_healthz",  # of KubeRay's readiness probe
        f"{deployed.url}/-/healthz",
    ):
        answer = httpx.get(url, trust_env=False, timeout=60)
        assert (answer.status_code, "success" in answer.text) == (200, True), url


def test_without_the_token_the_dashboard_is_closed(deployed: Deployed) -> None:
    url = f"http://127.0.0.1:{deployed.ray.dashboard}/api/serve/applications/"
    assert httpx.get(url, trust_env=False).status_code == 401


def test_every_metric_of_dashboard_and_alerts_is_exported(deployed: Deployed) -> None:
    wanted = {metric.exported for metric in METRICS} - RARE | set(SERVE_METRICS)
    body = {"input": "One two three.", "voice": "ryan", "seed": 1, "response_format": "pcm"}
    speech = httpx.post(f"{deployed.url}/v1/audio/speech", json=body, trust_env=False, timeout=120)
    assert speech.status_code == 200, speech.text
    deadline = time.monotonic() + 120
    while True:  # they are exported every few seconds
        text = httpx.get(f"http://127.0.0.1:{deployed.ray.metrics}/metrics", trust_env=False, timeout=60).text
        there = set(re.findall(r"^(ray_(?:qwen_tts|serve)_\w+?)(?:_bucket)?\{", text, re.MULTILINE))
        if wanted <= there:
            return
        assert time.monotonic() < deadline, wanted - there
        time.sleep(1)
