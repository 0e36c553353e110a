"""When a replica that computes leaves, and whom a failure is blamed on."""

import pytest

from deployments.replicas.health import Health
from qwen_tts.errors import EngineStopped, InvalidRequest, RequestFailed
from tests.deployments.replicas.conftest import Leaving

LOST, REFUSED = RuntimeError("device lost"), InvalidRequest("no", "input")


def computes() -> None:
    """A probe that succeeds."""


def fails() -> None:
    """A probe of a device that is lost."""
    raise LOST


def test_a_replica_beyond_repair_leaves_once(leaving: Leaving, caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    health.check()
    health.failed(LOST)
    health.failed(ArithmeticError("later"))
    with pytest.raises(EngineStopped) as raised:
        health.check()
    assert raised.value.__cause__ is LOST
    assert leaving.count == 1
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert "device lost" in caplog.text


def test_a_request_is_at_fault_if_the_probe_computes(leaving: Leaving) -> None:
    health = Health()
    for _ in range(10):
        judged = health.judge(ArithmeticError("secret"), computes)
        assert isinstance(judged, RequestFailed)
        assert "ArithmeticError" in str(judged)
        assert "secret" not in str(judged), "the caller is told what is inside"
    health.check()
    assert leaving.count == 0


def test_the_replica_is_at_fault_if_the_probe_fails(leaving: Leaving) -> None:
    health = Health()
    assert isinstance(health.judge(ArithmeticError("a symptom"), fails), EngineStopped)
    assert not health.ok
    assert leaving.count == 1
    assert isinstance(health.judge(ArithmeticError("later"), computes), EngineStopped), (
        "a broken replica blames a request"
    )


def test_a_mistake_of_the_caller_needs_no_probe(leaving: Leaving) -> None:
    health = Health()
    assert health.judge(REFUSED, fails) is REFUSED
    health.check()
    assert leaving.count == 0
