"""Each request counts in its phase, and the beginning is compared with the end."""

from pathlib import Path

import httpx
import pytest

from loadtest.bench import Bench
from loadtest.client import Target
from loadtest.generate import Effort, Generated
from loadtest.memory import Memory
from loadtest.record import Record, Refusal
from loadtest.result import conditions_of
from loadtest.scenarios import RequestOptions
from loadtest.timeline.phases import phases_of
from loadtest.timeline.report import compared_rows, phase_heads, phase_rows, write_report
from loadtest.timeline.result import TimelineResult
from loadtest.timeline.run import summed_up
from loadtest.timeline.watch import Sample, ServiceState, Watch
from tests.loadtest.made_up import record

_BEGAN = 5000.0  # epoch seconds
_BENCH = Bench(
    Target("http://127.0.0.1:1"), RequestOptions(), "custom_voice", "poisson", requests=8, users=None, seed=1,
    processes=1, allowed_ms=20,
)  # fmt: skip


def _refused(index: int, at_s: float, status: int, retry_after_s: float | None = 5.0) -> Record:
    refusal = Refusal(status=status, code="model_starting" if status == 503 else None, retry_after_s=retry_after_s)
    return record(index, scheduled_s=at_s, error=f"http {status}").model_copy(update={"refusal": refusal})


def _sample(at_s: float, talkers: int | None, memory: dict[int, float]) -> Sample:
    state = None if talkers is None else ServiceState(models={}, replicas={"talker of demo": {"RUNNING": talkers}})
    return Sample(at_s=_BEGAN + at_s, state=state, memory_mib=memory)


def _result(records: list[Record], samples: list[Sample], window_s: float) -> TimelineResult:
    phases = phases_of(["1:10", "0:20", "1:10"])
    with httpx.Client(base_url=_BENCH.target.url) as http:
        watch = Watch(http)
    watch.has_status, watch.samples, watch.processes = True, samples, {1: "talker", 2: "talker", 3: "in|gress"}
    generated = Generated(records, [Effort(_BEGAN, [1.0], 0.1)], stopped=False, stolen_share=0.0)
    return summed_up(_BENCH, conditions_of(_BENCH, "a test", None), phases, generated, watch, window_s)


def test_requests_count_in_their_phases_and_windows_are_compared(tmp_path: Path) -> None:
    records = [
        record(0, scheduled_s=0.0, heard_s=0.11),
        record(1, scheduled_s=5.0, heard_s=0.21),
        _refused(2, 6.0, 429),
        record(3, scheduled_s=7.0, error="truncated"),
        _refused(4, 30.0, 503),
        _refused(5, 31.0, 503, retry_after_s=None),
        record(6, scheduled_s=32.0, heard_s=4.01, underruns=1),
    ]
    samples = [
        _sample(-1.0, 2, {1: 1.0}),
        _sample(0.0, 1, {1: 100.0, 3: 50.0}),
        _sample(6.0, 1, {1: 110.0, 3: 50.0}),
        _sample(14.0, 0, {3: 50.0}),
        _sample(33.0, None, {2: 150.0, 3: 60.0}),
        _sample(39.0, 1, {2: 160.0, 3: 60.0}),
        _sample(41.0, 1, {2: 10.0, 3: 10.0}),
    ]
    result = _result(records, samples, window_s=8.0)
    assert [phase.counts.tries for phase in result.phases] == [4, 0, 3]
    up, _, again = (phase.counts for phase in result.phases)
    assert (up.admitted, up.refused, up.errors, up.not_ready) == (2, 1, {"truncated": 1}, {})
    assert (again.admitted, again.refused, again.errors) == (1, 0, {})
    assert again.not_ready == {"model_starting": 1, "model_starting without Retry-After": 1}
    assert (again.underran, again.worst_silence_ms) == (1, 300)
    assert (result.everything.tries, result.everything.admitted) == (7, 3)
    assert result.memory == [
        Memory(pid=1, process="talker", begin_mib=110.0, end_mib=None),
        Memory(pid=2, process="talker", begin_mib=None, end_mib=160.0),
        Memory(pid=3, process="in|gress", begin_mib=50.0, end_mib=60.0),
    ]
    rows = {row[0]: row[1:] for row in compared_rows(result)}
    assert rows["tries"] == ["4", "1", ""], "requests that were due in the last 8 s"
    assert rows["first audio ms, p99"] == ["200", "4000", "x 20.00"]
    assert rows["resident memory at the end MiB"] == ["160", "220", "+37.5%"]
    assert [sample.at_s for sample in result.samples] == [0.0, 6.0, 14.0, 33.0, 39.0, 41.0]
    write_report(result, tmp_path / "timeline.md")
    page = (tmp_path / "timeline.md").read_text(encoding="utf-8")
    assert "|  | 1: 1 a second for 10 s | 2: a pause of 20 s | 3: 1 a second for 10 s | all |" in page
    assert "| not ready (503) | 0 | 0 | 2 (model_starting: 1, model_starting without Retry-After: 1) |" in page
    assert "| talker of demo | 1 (0 s), 0 (14 s), 1 (39 s) |" in page
    assert "GET /status was read 6 times, 1 of them without an answer" in page
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_one_phase_has_no_column_of_all_and_windows_do_not_overlap() -> None:
    result = _result([record(0, scheduled_s=3.0), record(1, scheduled_s=39.0)], [], window_s=300.0)
    assert (result.compare_window_s, result.first.tries, result.last.tries, result.memory) == (20.0, 1, 1, [])
    assert phase_heads(result)[-1] == "all"
    alone = result.model_copy(update={"phases": result.phases[:1]})
    assert phase_heads(alone) == ["", "1: 1 a second for 10 s"]
    assert {len(row) for row in phase_rows(alone)} == {2}


def test_a_request_outside_the_phases_is_found() -> None:
    with pytest.raises(AssertionError, match="a request is in no phase, or in two"):
        _result([record(0, scheduled_s=40.0)], [], window_s=10.0)
