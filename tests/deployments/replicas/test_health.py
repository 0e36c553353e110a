"""When a replica that computes must be replaced."""

import pytest

from deployments.replicas.health import Health
from qwen_tts.errors import InvalidRequest


def compute(health: Health, *failures: Exception | None) -> None:
    """One computation after another; None succeeds."""
    for failure in failures:
        if failure is None:
            with health.watch():
                pass
        else:
            with pytest.raises(type(failure)), health.watch():
                raise failure


LOST, REFUSED = RuntimeError("device lost"), InvalidRequest("no", "input")


@pytest.mark.parametrize(
    "computed",
    [
        [],
        [LOST, LOST],
        [LOST, LOST, None, LOST, LOST],
        [LOST, LOST, LOST, LOST, None],
        [REFUSED, REFUSED, REFUSED, REFUSED],
        [LOST, REFUSED, LOST, REFUSED],
    ],
)
def test_healthy(computed: list[Exception | None]) -> None:
    health = Health()
    compute(health, *computed)
    health.check()


@pytest.mark.parametrize("computed", [[LOST, LOST, LOST], [None, LOST, REFUSED, LOST, REFUSED, LOST, REFUSED]])
def test_unhealthy(computed: list[Exception | None]) -> None:
    health = Health()
    compute(health, *computed)
    with pytest.raises(RuntimeError, match="the latest 3 batches have failed") as raised:
        health.check()
    assert raised.value.__cause__ is LOST


def test_a_bug_that_nobody_awaits_is_logged_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    health.failed(AssertionError("slot 3 released twice"))
    compute(health, None)
    with pytest.raises(RuntimeError, match="relied on"):
        health.check()
    assert "slot 3 released twice" in caplog.text
