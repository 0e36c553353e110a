"""The chart's values: misspelt or impossible ones are refused, and the generated files are up to date."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.settings import AppArgs
from k8s.render.__main__ import CHART, ROOT, SCHEMA, helm_template, plain_manifests
from k8s.render.schema import DERIVED, values_schema_text
from k8s.render.values import Values
from tests.k8s.charts import Combination, Refused, items, mapping, ray_service, render, templates

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
(GROUP,) = DEFAULTS["workerGroups"]
WORKER_GROUPS = ("spec", "rayClusterConfig", "workerGroupSpecs")


def test_the_schema_is_that_of_the_settings() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == values_schema_text(), "run `make manifests`"


def test_the_plain_manifests_are_those_of_the_chart(helm: Path) -> None:
    files = dict(plain_manifests())
    assert set(files) == set((ROOT / "k8s").glob("*.yaml"))
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make manifests`"


def test_make_manifests_says_that_nothing_differs() -> None:
    command = [sys.executable, "-m", "k8s.render.__main__", "--check"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_defaults_are_complete_and_valid() -> None:
    values = {key: value for key, value in DEFAULTS.items() if key != "app"}
    assert AppArgs.model_validate(DEFAULTS["app"]) == AppArgs()
    assert set(Values.model_validate(values).model_dump()) == set(values)


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("imagee.tag=1", "imagee"),
        ("image.tagg=1", "tagg"),
        ("image.tag=latest", "image/tag"),
        ("image.target=gpu", "image/target"),
        ("app.talkers.slots=1", "talkers"),
        ("app.talker.slotz=1", "slotz"),
        ("app.talker.slots=0", "app/talker/slots"),
        ("app.talker.dtype=fp8", "app/talker/dtype"),
        ("app.talker.autoscaling.max_replica=2", "max_replica"),
        ("app.ingress.long_text.ahead=2", "ahead"),
        ('app.models=[{"name": "a", "typ": "base"}]', "typ"),
        ('app.models=[{"name": "a", "type": "base", "talker": {"slotz": 1}}]', "slotz"),
        ("app.voices.timeout_s=0", "app/voices/timeout_s"),
        ("head.resources.limits.gpus=1", "gpus"),
        ('workerGroups=[{"name": "a"}]', "minReplicas"),
        ("workerGroups=[]", "workerGroups"),
        ("networkPolicy.egressPorts=[0]", "networkPolicy/egressPorts/0"),
        ("upgradeStrategy.incremental.stepSize=5", "stepSize"),
        ("longestStreamSeconds=5", "longestStreamSeconds"),
        ("podMonitor.interval=often", "podMonitor/interval"),
        ("prometheusRule.thresholds.refusedPercent=100", "refusedPercent"),
        ("httpRoute.implementation=nginx", "httpRoute/implementation"),
        ("gcsFaultTolerance.redisAddress=redis", "gcsFaultTolerance/redisAddress"),
        # Values that the chart derives cannot be set.
        *((f"app.talker.{DERIVED[0]}=5", DERIVED[0]), (f"app.{DERIVED[1]}.file=x", DERIVED[1])),
        # Rules that a schema cannot express.
        ("app.ingress.num_replicas=2", "several ingress replicas"),
        ('app.talker.autoscaling={"min_replicas": 0, "max_replicas": 1}', "start_wait_s"),
        ('app.codec_decoder.autoscaling={"min_replicas": 0, "max_replicas": 1}', "start_wait_s"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs is empty"),
        ("podMonitor.enabled=true", "networkPolicy.metricsFrom"),
        ("prometheusRule.enabled=true", "podMonitor.enabled"),
        (f"workerGroups=[{json.dumps(GROUP | {'mps': True})}]", "mps and no GPU"),
        (f"workerGroups=[{json.dumps(GROUP | {'minReplicas': 3})}]", "is above maxReplicas"),
        (f"workerGroups=[{json.dumps(GROUP | {'minReplicas': -1})}]", "workerGroups/0/minReplicas"),
        ("gpuNodes.cluster=gke", "gpuNodes.labels has no such key"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(helm: Path, flag: str, named: str) -> None:
    how = "--set-json" if flag.partition("=")[2][:1] in "[{" else "--set"
    said = helm_template((), how, flag, helm=helm)
    assert said.returncode != 0, said.stdout
    assert named in said.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}, "ingress": {"enabled": True}},
            "Gateway and a route of its own",
        ),
        ({"voices": {"claim": {"enabled": True}}, "app": {"voices": {"url": "s3://a/b"}}}, "both say where"),
    ],
)
def test_what_excludes_each_other_is_refused_together(helm: Path, options: object, named: str) -> None:
    with pytest.raises(Refused, match=named):
        render(Combination(options=json.dumps(options)), helm)


def test_the_commands_of_the_readme_are_understood(helm: Path) -> None:
    """Every command that installs or upgrades the chart is run as `helm template` with the same flags."""
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line)[1:] for line in re.findall(r"^ *\$ (helm .* helm/qwen-tts .*)$", readme, re.MULTILINE)
    ]
    assert [command[0] for command in commands] == ["install"] * 5 + ["upgrade"] * 7
    others = ("--create-namespace", "--reset-values", "--reset-then-reuse-values", "--force-conflicts")
    (rescue,) = (command for command in commands if "--force-conflicts" in command)
    assert "--reset-values" in rescue, "Helm keeps the values of old presets, and this chart refuses some of them"
    for _, *rest in commands:
        flags = [flag for flag in rest if flag not in others]
        said = subprocess.run([str(helm), "template", *flags], cwd=ROOT, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert "kind: RayService" in said.stdout


def test_a_group_may_have_no_pod_until_a_replica_needs_one(helm: Path) -> None:
    options = {"workerGroups": [GROUP, GROUP | {"name": "later", "minReplicas": 0}]}
    later = items(ray_service(render(Combination(options=json.dumps(options)), helm)), *WORKER_GROUPS)[1]
    assert (later["replicas"], later["minReplicas"]) == (0, 0)


def test_only_groups_with_a_gpu_select_its_nodes(helm: Path) -> None:
    options = {"gpuNodes": {"cluster": "ours", "labels": {"ours": {"pool": "h100"}}}}
    rendered = items(ray_service(render(Combination(("h100", "one-model"), json.dumps(options)), helm)), *WORKER_GROUPS)
    selectors = {str(group["groupName"]): mapping(group, "template", "spec").get("nodeSelector") for group in rendered}
    assert selectors == {"talker": {"pool": "h100"}, "codec": {"pool": "h100"}, "edge": None, "encoder": None}


def test_pods_without_models_download_none(helm: Path) -> None:
    pods = templates(render(Combination(("l4", "one-model")), helm))
    assert "initContainers" in mapping(pods["speech"], "spec")
    assert "initContainers" not in mapping(pods["edge"], "spec")
