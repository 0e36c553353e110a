"""The causes that are diagnosed, and the states of a normal start that are not causes."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from deployments.commands.cluster.diagnosis import diagnose
from deployments.commands.cluster.objects import Event, Pod, RayService
from deployments.commands.cluster.rayservice import GroupPods, Snapshot

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CLUSTER = "qwen-tts-abcde"
WAITS = "Deployment 'Talker' in application 'qwen-tts' has 1 replicas that have taken more than 30s to "


def service(message: str = "") -> RayService:
    """Return a starting service whose one deployment is UPDATING with this message."""
    deployments = {"Talker": {"status": "UPDATING", "message": message}}
    applications = {"qwen-tts": {"status": "DEPLOYING", "serveDeploymentStatuses": deployments}}
    pending = {"rayClusterName": CLUSTER, "applicationStatuses": applications}
    status = {"observedGeneration": 1, "pendingServiceStatus": pending}
    return {"metadata": {"name": "qwen-tts", "generation": 1}, "spec": {}, "status": status}  # type: ignore[typeddict-item]  # a part of one


def warning(kind: str, name: str, age_s: float, place: Literal["series", "lastTimestamp", "eventTime"]) -> Event:
    seen = (NOW - timedelta(seconds=age_s)).isoformat()
    event: Event = {"metadata": {}, "reason": "Failed", "message": "m", "involvedObject": {"kind": kind, "name": name}}
    when: Event = {"series": {"lastObservedTime": seen}} if place == "series" else {place: seen}  # type: ignore[misc]
    return event | when


def pod(phase: str = "Running", restarts: int = 0, ready: bool = False) -> Pod:
    container = {"name": "ray-worker", "restartCount": restarts, "state": {"running": {}}}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": phase, "conditions": conditions, "containerStatuses": [container]}
    labels = {"ray.io/cluster": CLUSTER, "ray.io/group": "talker", "ray.io/node-type": "worker"}
    return {"metadata": {"name": "p", "labels": labels}, "status": status}  # type: ignore[typeddict-item]  # a part of one


def causes(
    of: RayService, pods: list[Pod] | None = None, warnings: list[Event] | None = None, desired: int = 1
) -> list[str]:
    groups = [GroupPods(CLUSTER, "talker", 0, desired)]
    return [cause.text for cause in diagnose(Snapshot(of, groups, pods or [], warnings or []), NOW)]


@pytest.mark.parametrize("place", ["series", "lastTimestamp", "eventTime"])
@pytest.mark.parametrize(("age_s", "counts"), [(10, True), (600, False)])
def test_a_warning_counts_while_it_is_fresh(
    place: Literal["series", "lastTimestamp", "eventTime"], age_s: float, counts: bool
) -> None:
    assert causes(service(), warnings=[warning("RayCluster", CLUSTER, age_s, place)]) == (
        [f"RayCluster {CLUSTER}: Failed: m"] if counts else []
    )
    told = causes(service(), [pod("Pending")], [warning("Pod", "p", age_s, place)])
    assert told == (["Pod p (group talker): Failed: m"] if counts else [])


@pytest.mark.parametrize(("started_s", "counts"), [(30, False), (50, False), (100, True)])
def test_a_dashboard_may_be_slow_in_its_first_minute(started_s: int, counts: bool) -> None:
    """The request was given up 10 s ago. started_s: since when the head runs."""
    event = warning("RayService", "qwen-tts", 10, "eventTime")
    event["reason"], event["message"] = "FailedToUpdateServeApplications", "context deadline exceeded"
    head = pod()
    head["metadata"]["labels"]["ray.io/node-type"] = "head"
    state = head["status"]["containerStatuses"][0]["state"]
    state["running"] = {"startedAt": (NOW - timedelta(seconds=started_s)).isoformat()}
    assert (causes(service(), [head], [event]) != []) == counts


def test_another_failure_of_the_dashboard_is_a_cause_at_once() -> None:
    event = warning("RayService", "qwen-tts", 10, "eventTime")
    event["reason"], event["message"] = "FailedToUpdateServeApplications", "500: no such module"
    assert causes(service(), [], [event]) != []


def test_a_slow_model_is_no_cause() -> None:
    assert causes(service(WAITS + "initialize.\nThis may be caused by a slow __init__"), [pod()]) == []


def test_no_room_is_a_cause_once_all_nodes_are_there() -> None:
    waits = service(WAITS + "be scheduled.")
    assert causes(waits, [pod("Pending")]) == []  # its image is being pulled
    assert causes(waits, [pod()], desired=2) == []  # the autoscaler is adding one
    assert causes(waits, [pod()]) == [f"Deployment Talker is UPDATING: {WAITS}be scheduled."]


def test_a_container_that_keeps_failing_counts_while_it_runs_once_more() -> None:
    assert causes(service(), [pod(restarts=2)]) == []
    assert causes(service(), [pod(restarts=3, ready=True)]) == []
    (told,) = causes(service(), [pod(restarts=3)])
    assert "restarted 3 times" in told


def test_a_download_that_keeps_failing_is_a_cause() -> None:
    download = pod(restarts=3)
    download["metadata"]["labels"] = {"app.kubernetes.io/component": "model-cache"}
    (told,) = diagnose(Snapshot(service(), [], [pod()], [], downloads=[download]), NOW)
    assert "(group model-cache): its container ray-worker ended" in told.text


def test_a_pod_that_is_told_to_end_is_no_cause() -> None:
    ending = pod(restarts=5)
    ending["metadata"]["deletionTimestamp"] = NOW.isoformat()
    assert causes(service(), [ending]) == []
