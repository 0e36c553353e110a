"""What a second `helm upgrade` of the chart changes: the real Helm on the tests' API server and operator."""

import copy
import re
import shlex

import pytest
import yaml

from k8s.render.__main__ import CHART, preset
from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import Helm, Run, assert_refused, assert_said
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.operator import Operator
from tests.deployments.commands.cluster.starts import Start

README = (CHART / "README.md").read_text(encoding="utf-8")
# The flags and the effect of each row of the table "What a second `helm upgrade` does".
ROWS = re.findall(
    r"^\| [^|]+ \| (?:`(--set [^`|]+)`)? ?\| (nothing|the running|a new cluster|these objects)", README, re.M
)
PRESETS = ("-f", str(preset("l4")), "-f", str(preset("one-model")))
NAME = "speech-qwen-tts"
SOON = ("--timeout", "20", "--stuck-after", "0.5")


@pytest.fixture
def upgrade(helm: Helm, server: ApiServer, operator: Operator) -> Helm:
    """Return a function that runs `helm upgrade --install` with flags, and waits until the operator has settled."""

    def call(*flags: str) -> str:
        said = helm("upgrade", "--install", "speech", str(CHART), *PRESETS, *flags)
        server.wait_until(lambda: operator.settled() is not None)
        return said

    return call


def service(server: ApiServer) -> Json:
    return server.find("RayService", NAME)


def active(server: ApiServer) -> str:
    return str(service(server)["status"]["activeServiceStatus"]["rayClusterName"])


def group(server: ApiServer) -> Json:
    """Return the worker group of the active cluster."""
    found: Json = server.find("RayCluster", active(server))["spec"]["workerGroupSpecs"][0]
    return found


def versions(server: ApiServer) -> dict[str, str]:
    """Return the versions of all objects but Helm's records, by kind and name."""
    kinds = ("RayService", "RayCluster", "Pod", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "Service")
    found = [body for kind in kinds for body in server.find_all(kind)]
    return {f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}


def application(server: ApiServer) -> Json:
    (found,) = yaml.safe_load(service(server)["spec"]["serveConfigV2"])["applications"]
    assert isinstance(found, dict)
    return found


def test_the_table_is_read_whole() -> None:
    table = README[README.index("| change |") : README.index("A **new cluster**")]
    assert len(ROWS) == table.count("\n| "), ROWS
    assert {effect for _, effect in ROWS} == {"nothing", "the running", "a new cluster", "these objects"}


@pytest.mark.parametrize(("flags", "effect"), ROWS)
def test_a_second_upgrade_does_what_the_readme_says(upgrade: Helm, server: ApiServer, flags: str, effect: str) -> None:
    upgrade()
    cluster, before, settings = active(server), versions(server), application(server)
    upgrade(*shlex.split(flags))
    assert (active(server) != cluster) == (effect == "a new cluster")
    if effect == "nothing":
        assert versions(server) == before
    if effect == "these objects":
        changed = {name.split()[0] for name, _ in versions(server).items() ^ before.items()}
        assert changed == {"PodDisruptionBudget"}
    if effect == "the running":
        now = application(server)
        assert now["args"] == settings["args"], "other args start new replicas"
        assert now["deployments"] != settings["deployments"]


def test_a_new_cluster_has_the_new_bounds_and_tolerations(upgrade: Helm, server: ApiServer) -> None:
    upgrade()
    upgrade("--set", "workerGroups[0].maxReplicas=9", "--set", "workerGroups[0].tolerations[1].key=reserved")
    assert group(server)["maxReplicas"] == 9
    assert group(server)["template"]["spec"]["tolerations"][1] == {"key": "reserved"}


def test_the_redis_stays_for_the_old_cluster(upgrade: Helm, helm: Helm, server: ApiServer) -> None:
    """It stays until the new cluster serves, after which the README says how to remove it."""
    kinds, redis = ("StatefulSet", "Service", "NetworkPolicy"), ("--set", "gcsFaultTolerance.enabled=true")
    upgrade()
    upgrade(*redis)
    made = [server.find(kind, f"{NAME}-redis")["metadata"]["uid"] for kind in kinds]
    helm("rollback", "speech")
    upgrade(*redis)
    helm("uninstall", "speech")
    assert [server.find(kind, f"{NAME}-redis")["metadata"]["uid"] for kind in kinds] == made


def test_a_new_cluster_starts_with_the_least_replicas(upgrade: Helm, server: ApiServer) -> None:
    upgrade()
    cluster = copy.deepcopy(server.find("RayCluster", active(server)))
    cluster["spec"]["workerGroupSpecs"][0]["replicas"] = 4
    server.replace(cluster, "autoscaler")
    upgrade("--set", "image.tag=0.2.0-cuda", "--set", "app.talker.autoscaling.min_replicas=4")
    assert group(server)["replicas"] == 1
    larger = active(server)
    upgrade("--set", "image.tag=0.2.0-cuda", "--set", "app.talker.autoscaling.min_replicas=1")
    assert active(server) == larger, "the number of replicas is live"


def test_settings_change_in_place_where_that_is_asked_for(upgrade: Helm, server: ApiServer) -> None:
    in_place = ("--set", "upgradeStrategy.newClusterFor.app=false")
    upgrade(*in_place)
    cluster = active(server)
    upgrade(*in_place, "--set", "app.talker.slots=16")
    assert active(server) == cluster
    assert application(server)["args"]["talker"]["slots"] == 16


def test_ignored_bounds_are_reported_and_rollout_brings_them(upgrade: Helm, server: ApiServer, run: Run) -> None:
    ignored = ("--set", "upgradeStrategy.newClusterFor.scaling=false")
    upgrade(*ignored)
    assert "Note:" not in run("status").stdout
    upgrade(*ignored, "--set", "workerGroups[0].maxReplicas=9", "--set", "workerGroups[0].tolerations[1].key=reserved")
    assert group(server)["maxReplicas"] == 12
    start, end = "Note: Group speech: the running cluster was made with", "; `qwen-tts cluster rollout` brings"
    words = (f"{start} maxReplicas 12{end} 9.", f"{start}out the toleration for reserved{end} it.")
    assert_said(run("status"), "RayService speech-qwen-tts: ready", *words)
    assert_said(run("wait", *SOON), *words)
    result = run("rollout", *SOON)
    assert_said(result, "ready")
    assert "Note:" not in result.output
    assert group(server)["maxReplicas"] == 9
    assert len(group(server)["template"]["spec"]["tolerations"]) == 2


def test_fields_that_go_writes_in_other_words_are_no_conflict(upgrade: Helm, server: ApiServer) -> None:
    container = "workerGroups[0].initContainers[0].name=ca,workerGroups[0].initContainers[0].image=ca:1"
    flags = ("--set", container, "--set", "workerGroups[0].env.EMPTY=")
    upgrade(*flags)
    before = versions(server)
    upgrade(*flags)
    assert versions(server) == before


def test_a_release_that_the_operator_owns_needs_force_once(upgrade: Helm, server: ApiServer) -> None:
    upgrade()
    theirs = copy.deepcopy(service(server))
    theirs["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["scaleStrategy"] = {"workersToDelete": []}
    server.replace(theirs, "kuberay-operator")  # what the operator wrote into releases of the old chart
    with pytest.raises(AssertionError, match='conflict with "kuberay-operator"'):
        upgrade("--set", "image.tag=0.2.0-cuda")
    upgrade("--set", "image.tag=0.2.0-cuda", "--force-conflicts")
    upgrade("--set", "image.tag=0.3.0-cuda")
    assert group(server)["template"]["spec"]["containers"][0]["image"].endswith("0.3.0-cuda")


def test_an_installation_that_lacked_gpus_for_long_is_mended_by_an_upgrade(
    upgrade: Helm, server: ApiServer, operator: Operator, run: Run
) -> None:
    operator.start = Start.NO_GPU
    upgrade()
    operator.start = Start.WELL
    upgrade("--set", "workerGroups[0].nodeSelector.pool=gpu")
    assert_said(run("status"), "ready")


def test_what_kuberay_has_given_up_is_installed_again(
    upgrade: Helm, helm: Helm, server: ApiServer, operator: Operator, run: Run
) -> None:
    operator.start = Start.NO_GPU
    upgrade("--set", "initializingTimeoutSeconds=60")
    operator.start = Start.WELL
    upgrade("--set", "initializingTimeoutSeconds=600")
    delete, again = f"kubectl --namespace default delete rayservice {NAME}", "helm upgrade speech helm/qwen-tts"
    assert_refused(
        run("wait", *SOON), "KubeRay has given up", "no later change", delete, f"{again} --namespace default"
    )
    server.delete("RayService", NAME)
    server.wait_until(lambda: not server.find_all("RayService"))
    helm("upgrade", "speech", str(CHART), "--reset-then-reuse-values")
    assert_said(run("wait", *SOON), "ready")


def test_a_failed_release_is_reported(upgrade: Helm, server: ApiServer, run: Run) -> None:
    upgrade()
    assert "Helm" not in run("status").stdout
    server.forbidden.add(("patch", "rayservices"))
    with pytest.raises(AssertionError, match="UPGRADE FAILED"):
        upgrade("--set", "image.tag=0.2.0-cuda")
    said = ("Helm's release speech is failed at revision 2", "helm rollback speech --namespace default")
    assert_said(run("status"), "RayService speech-qwen-tts: ready", *said)
    assert_said(run("wait", *SOON), *said)
    server.forbidden.add(("list", "secrets"))
    assert "Helm" not in run("status").stdout
