"""The states of deployments are read in a bounded time, whoever hangs, and once for all callers."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve.exceptions import RayServeException

from deployments.wire import deployment_states
from deployments.wire.deployment_states import DeploymentState, DeploymentStates
from deployments.wire.load import Load
from tests.virtual_time import in_virtual_time

PATIENCE_S = 1.0


class Handle:
    """A handle whose replicas report `loads`. None stands for a replica that hangs."""

    app_name = "app"

    def __init__(self, name: str, *loads: Load | Exception | None) -> None:
        self.deployment_name = name
        self._loads = loads
        self.asked = 0

    def broadcast(self, method: str) -> "Handle":
        assert method == "record_autoscaling_stats"
        self.asked += 1
        return self

    async def results_async(self) -> list[dict[str, float]]:
        stats = []
        for load in self._loads:
            if isinstance(load, Exception):
                raise load
            if load is None:
                await asyncio.Event().wait()
            else:
                stats.append(load.stats())
        return stats


@dataclass
class Controller:
    """Serve's controller. It knows the deployment "a" with two replicas."""

    hangs: bool = False
    asked: int = 0
    replica_states: dict[str, int] = field(default_factory=lambda: {"RUNNING": 2})

    async def status(self) -> object:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        healthy = SimpleNamespace(status=SimpleNamespace(value="HEALTHY"), replica_states=self.replica_states)
        return SimpleNamespace(applications={"app": SimpleNamespace(deployments={"a": healthy})})


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    controller = Controller()
    monkeypatch.setattr(deployment_states, "_serve_status", controller.status)
    return controller


def states(**handles: Handle) -> DeploymentStates:
    return DeploymentStates(cast("Any", handles))


BUSY, IDLE = Load(8, 3, 1, 0.25), Load(8, 0, 0)


def now_s() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time(deployment_states)
async def test_what_serve_and_the_replicas_say(controller: Controller) -> None:
    assert await states(x=Handle("a", BUSY, IDLE), y=Handle("unknown", IDLE)).read() == {
        "x": DeploymentState("HEALTHY", {"RUNNING": 2}, (BUSY, IDLE)),
        "y": DeploymentState(None, None, (IDLE,)),
    }


@in_virtual_time(deployment_states)
async def test_a_replica_that_hangs_hides_only_its_deployment(controller: Controller) -> None:
    began_s = now_s()
    found = await states(x=Handle("a", BUSY, None), y=Handle("a", BUSY)).read()
    assert found["x"] == DeploymentState("HEALTHY", {"RUNNING": 2}, None)
    assert found["y"].loads == (BUSY,)
    assert now_s() - began_s == pytest.approx(PATIENCE_S)


@in_virtual_time(deployment_states)
async def test_a_replica_that_fails_hides_only_its_deployment(controller: Controller) -> None:
    assert (await states(x=Handle("a", RayServeException("gone"))).read())["x"].loads is None


@in_virtual_time(deployment_states)
async def test_a_deployment_without_replicas_has_no_load(controller: Controller) -> None:
    controller.replica_states = {}
    found = await states(x=Handle("a", RayServeException("no replica"))).read()
    assert found["x"] == DeploymentState("HEALTHY", {}, ())


@in_virtual_time(deployment_states)
async def test_a_controller_that_hangs_is_asked_once(controller: Controller) -> None:
    controller.hangs = True
    asked = states(x=Handle("a", BUSY))
    for _ in range(3):
        began_s = now_s()
        assert await asked.read() == {"x": DeploymentState(None, None, (BUSY,))}
        assert now_s() - began_s == pytest.approx(PATIENCE_S)
    assert controller.asked == 1


@in_virtual_time(deployment_states)
async def test_callers_share_what_is_a_second_old(controller: Controller) -> None:
    handle = Handle("a", BUSY)
    asked = states(x=handle)
    first, second = await asyncio.gather(asked.read(), asked.read())
    assert first == second == await asked.read()
    assert (handle.asked, controller.asked) == (1, 1)
    await asyncio.sleep(1.5)
    await asked.read()
    assert (handle.asked, controller.asked) == (2, 2)


@in_virtual_time(deployment_states)
async def test_a_caller_that_leaves_stops_nobody_else(controller: Controller) -> None:
    asked = states(x=Handle("a", None))
    leaving, staying = asyncio.create_task(asked.read()), asyncio.create_task(asked.read())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying)["x"].status == "HEALTHY"
