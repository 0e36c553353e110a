"""The loaded models, and the checks of a busy service."""

import asyncio

import pytest
from ray.serve.exceptions import RayServeException

from deployments.errors import Unavailable
from deployments.wire import models as wire_models
from deployments.wire.messages import ModelCard
from deployments.wire.models import Models
from qwen_tts.errors import EngineStopped
from tests.deployments.loaded import ANY
from tests.virtual_time import in_virtual_time


async def test_until_they_have_loaded_every_question_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_models, "_DESCRIBE_TIMEOUT_S", 0.01)
    go = asyncio.Event()

    async def describe() -> list[ModelCard]:
        await go.wait()
        return [ANY]

    models = Models(describe)
    for ask in (models.load, models.check):
        with pytest.raises(Unavailable, match="still loading"):
            await ask()
    with pytest.raises(Unavailable):
        models.named("any")
    go.set()
    await models.load()
    assert models.named("any") is ANY


async def test_replicas_that_are_busy_stay_ready_and_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe must not remove a service from its load balancer because its replicas are busy."""
    monkeypatch.setattr(wire_models, "_DESCRIBE_TIMEOUT_S", 0.01)
    asked, hang = 0, False

    async def describe() -> list[ModelCard]:
        nonlocal asked
        asked += 1
        if hang:
            await asyncio.Event().wait()
        return [ANY]

    models = Models(describe)
    await models.check()
    hang = True
    for _ in range(3):
        await models.check()
    assert asked == 2, "probes at the same time do not share one call"


async def test_replicas_that_do_not_answer_for_long_are_unavailable_and_called_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_models, "_DESCRIBE_TIMEOUT_S", 0.01)
    asked, hang, now_s = 0, False, 100.0

    async def describe() -> list[ModelCard]:
        nonlocal asked
        asked += 1
        if hang:
            await asyncio.Event().wait()
        return [ANY]

    models = Models(describe, lambda: now_s)
    await models.check()
    hang = True
    now_s += 20
    await models.check()
    now_s += 20
    with pytest.raises(Unavailable, match="have not answered for 30 s"):
        await models.check()
    assert asked == 2
    now_s, hang = now_s + 20, False
    await models.check()
    assert asked == 3


async def test_a_replica_that_is_lost_is_reported_at_once() -> None:
    lost = False

    async def describe() -> list[ModelCard]:
        if lost:
            raise RuntimeError("the replica died")
        return [ANY]

    models = Models(describe)
    await models.check()
    lost = True
    with pytest.raises(RuntimeError, match="died"):
        await models.check()
    await models.load()


@in_virtual_time()
async def test_models_are_loaded_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request may come when Serve can find no replica, because the head is away."""
    away = [RayServeException("the controller is gone"), EngineStopped("a replica was lost")]
    asked, loaded = 0, asyncio.Event()

    async def describe() -> list[ModelCard]:
        nonlocal asked
        asked += 1
        if away:
            raise away.pop()
        await loaded.wait()
        return [ANY]

    models = Models(describe, asyncio.get_running_loop().time)
    early = asyncio.create_task(models.load_early())
    await asyncio.sleep(600)
    assert not early.done(), "models that load slowly were given up"
    loaded.set()
    await early
    before = asked
    await models.load()
    assert models.named("any") is ANY
    assert asked == before, "a request called the replicas for the cards"
