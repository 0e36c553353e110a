"""The metrics of the admission, as its alerts need them."""

import asyncio

import pytest

from deployments.speech.admission import Admission
from deployments.speech.edge_metrics import EdgeMetrics
from deployments.speech.terms import Terms
from qwen_tts.errors import Overloaded

MODEL = "m"


class Value:
    """A gauge or counter that keeps what it was set to. Those of Serve exist in replicas only."""

    def __init__(self) -> None:
        self.now = 0.0

    def set(self, value: float, tags: object) -> None:
        self.now = value

    def inc(self, tags: object) -> None:
        self.now += 1

    def observe(self, value: float, tags: object) -> None: ...


class Noted(EdgeMetrics):
    def __init__(self) -> None:
        self.wait_ms = Value()
        vars(self).update(dict.fromkeys(("_refused", "_waited", "_limit", "_in_use"), Value()), _expected=self.wait_ms)


async def test_the_expected_wait_ends_when_a_place_is_free() -> None:
    metrics = Noted()
    admission = Admission(metrics)
    limit = admission._line(MODEL).limit
    limit.limit, limit.growing_fast = 1.0, False
    async with admission.place(MODEL, Terms("interactive", 100.0, b"a")):
        assert metrics.wait_ms.now == 0
        with pytest.raises(Overloaded):
            await asyncio.create_task(enter(admission, b"b"))
        assert metrics.wait_ms.now > 0
    assert metrics.wait_ms.now == 0, "the alert would go on after the line has ended"


async def enter(admission: Admission, key: bytes) -> None:
    async with admission.place(MODEL, Terms("interactive", 0.0, key)):
        raise AssertionError("the place was taken")
