"""The number of replicas that the reported load needs, without a Ray."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from ray.serve.config import AutoscalingContext

from deployments.wire import load
from deployments.wire.load import Load, replicas_needed
from tests.rules.import_rules import imports

IDLE = Load(8, 0, 0)


def needed(*loads: Load, target: int | None = None, silent: int = 0) -> int:
    """Return the decision for these loads. `silent` replicas run too, and have not reported yet."""
    reports = {str(index): one.stats() for index, one in enumerate(loads)}
    number_running = len(loads) + silent
    context = SimpleNamespace(
        current_num_replicas=number_running,
        target_num_replicas=number_running if target is None else target,
        aggregated_metrics={
            name: {replica: report[name] for replica, report in reports.items()} for name in IDLE.stats() if reports
        },
    )
    number, state = replicas_needed(cast("AutoscalingContext", context))
    assert state == {}
    return number


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([Load(8, 0, 0)], 0),  # bounded by min_replicas
        ([Load(8, 1, 0)], 1),
        ([Load(8, 4, 0)], 1),
        ([Load(8, 5, 0)], 2),
        ([Load(8, 8, 6)], 3),
        ([Load(8, 8, 30)], 8),
        ([Load(8, 3, 0), Load(8, 2, 0)], 2),  # one replica would have more than half of its capacity
        ([Load(8, 2, 0), Load(8, 2, 0)], 1),
        ([Load(8, 4, 0), IDLE, IDLE, IDLE], 1),
    ],
)
def test_the_number_keeps_the_load_between_half_and_three_fifths(loads: list[Load], expected: int) -> None:
    assert needed(*loads) == expected


def test_capacity_is_what_the_machine_can_serve_in_time_and_not_its_slots() -> None:
    assert needed(Load(capacity=3, running=3, waiting=2)) == 3
    assert needed(Load(capacity=3, running=2, waiting=0), Load(capacity=3, running=2, waiting=0)) == 3


def test_a_decision_that_was_followed_stays() -> None:
    """With the decided number of replicas and the same requests, the next decision is the same number."""

    def spread(requests: int, number: int) -> list[Load]:
        shares = [requests // number + (index < requests % number) for index in range(number)]
        return [Load(8, min(8, share), max(0, share - 8)) for share in shares]

    for requests in range(1, 60):
        for replicas in range(1, 6):
            number = needed(*spread(requests, replicas))
            assert needed(*spread(requests, number)) == number, f"{requests} requests on {replicas} replicas"
            assert math.ceil(requests / 8) <= number


@pytest.mark.parametrize(("idle_s", "expected"), [(9.0, 1), (11.0, 0)])
def test_short_streams_that_no_report_has_seen_keep_one_replica(idle_s: float, expected: int) -> None:
    assert needed(Load(8, 0, 0, idle_s=idle_s), IDLE) == expected


def test_listeners_without_audio_need_another_replica() -> None:
    assert needed(Load(8, 4, 0, headroom_s=0.5)) == 1
    assert needed(Load(8, 4, 0, headroom_s=0.05)) == 2
    assert needed(Load(8, 4, 0, headroom_s=-2.0), Load(8, 1, 0, headroom_s=9.0)) == 3


def test_no_replica_is_added_for_one_stream_on_a_slow_machine() -> None:
    assert needed(Load(8, 1, 0, headroom_s=-2.0)) == 1


def test_replicas_that_start_are_not_counted_twice() -> None:
    assert needed(Load(8, 8, 6), target=3) == 3, "three are needed, and two of them are starting"
    assert needed(Load(8, 4, 0, headroom_s=0.0), target=2) == 2


def test_without_reports_nothing_changes() -> None:
    """Serve itself starts the first replica of a deployment that has none."""
    assert needed(target=0) == 0
    assert needed(target=1) == 1
    assert needed(silent=2) == 2
    assert needed(Load(8, 7, 0), silent=1) == 2, "a replica without a report is idle"


def test_a_replica_without_listeners_reports_numbers() -> None:
    assert all(isinstance(value, float | int) and math.isfinite(value) for value in IDLE.stats().values())


def test_the_controller_can_use_the_policy_without_this_package() -> None:
    """Serve sends the module by value. `ray` is imported for type checks only."""
    names = {name.split(".")[0] for name in imports(Path(str(load.__file__)).read_text(encoding="utf-8"))}
    assert names <= sys.stdlib_module_names | {"ray"}
