"""The wait for the application, by Serve's status and the log, until the service answers or has failed."""

import threading
from collections.abc import Iterable, Iterator

import pytest
import ray
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from deployments.commands import local_service
from deployments.commands.local_service import local_service as start_service
from deployments.commands.local_service import wait_ready
from deployments.commands.start_checks import StartFailed
from deployments.settings import AppArgs

TALKER = "talker-mine"
URL = "http://127.0.0.1:8000"


def overview(
    application: ApplicationStatus, deployment: DeploymentStatus, message: str = ""
) -> ApplicationStatusOverview:
    trigger = DeploymentStatusTrigger.CONFIG_UPDATE_STARTED
    talker = DeploymentStatusOverview(deployment, trigger, {}, message)
    return ApplicationStatusOverview(application, "", 0.0, {TALKER: talker})


STARTING = overview(ApplicationStatus.DEPLOYING, DeploymentStatus.UPDATING)
RUNNING = overview(ApplicationStatus.RUNNING, DeploymentStatus.HEALTHY)


def wait(
    monkeypatch: pytest.MonkeyPatch,
    statuses: Iterable[ApplicationStatusOverview],
    lines: Iterator[list[str]] | None = None,
    answers: Iterable[bool] = (True,),
) -> list[str]:
    """Names of the deployments that became ready, in the order of the calls."""
    next_status, next_answer = iter(statuses), iter(answers)
    monkeypatch.setattr(local_service, "_POLL_S", 0)
    monkeypatch.setattr(local_service, "_status", lambda: next(next_status))
    monkeypatch.setattr(local_service, "_answers", lambda url: url == URL and next(next_answer))
    ready: list[str] = []
    new_lines = lines or iter(lambda: list[str](), None)
    assert wait_ready(URL, threading.Event(), lambda: next(new_lines), ready.append, {TALKER: "mine"})
    return ready


def test_it_waits_until_the_service_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = wait(monkeypatch, [STARTING, RUNNING, RUNNING], answers=[False, True])
    assert ready == [TALKER, TALKER]


def test_a_replica_that_cannot_start_ends_the_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "A replica failed to start with exception. Retrying 2 more time(s). Error:\nTraceback\nKeyError: 'a'\n"
    failing = overview(ApplicationStatus.DEPLOYING, DeploymentStatus.UPDATING, message)
    with pytest.raises(StartFailed, match=r"^mine: KeyError: 'a'$"):
        wait(monkeypatch, [STARTING, failing])


def test_a_worker_killed_for_want_of_memory_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "(raylet) 1 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to ..."
    with pytest.raises(StartFailed, match=r"memory ran out; .*--model"):
        wait(monkeypatch, [STARTING, STARTING], lines=iter([["another line"], [line]]))


def test_a_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_service, "_status", lambda: pytest.fail("Serve is not called after a stop"))
    stop = threading.Event()
    stop.set()
    assert not wait_ready(URL, stop, list, lambda _: None, {})


@pytest.mark.parametrize(("usable", "counted"), [(8, 8), (1, 4)])
def test_ray_counts_the_cpus_of_the_container(monkeypatch: pytest.MonkeyPatch, usable: int, counted: int) -> None:
    """Ray itself would round a limit of 2.5 CPUs down, and a small machine must still place all deployments."""
    seen: dict[str, object] = {}

    def init(**options: object) -> None:
        seen.update(options)
        raise OSError("enough seen")

    monkeypatch.setattr(local_service, "usable_cpus", lambda: usable)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(StartFailed), start_service(AppArgs(), "127.0.0.1", 8000):
        pass
    assert seen["num_cpus"] == counted
