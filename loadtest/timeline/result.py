"""The result file of a timeline."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from loadtest.memory import Memory
from loadtest.result import Conditions
from loadtest.summary import Distribution
from loadtest.timeline.watch import Sample
from loadtest.tries import Counts, Try


class PhaseResult(BaseModel):
    """The tries that were due in a phase. rate: arrivals a second that were planned."""

    model_config = ConfigDict(frozen=True)

    begin_s: float
    rate: float
    for_s: float
    counts: Counts


class TimelineResult(BaseModel):
    """The outcome of a load in phases. Moments are seconds since its beginning.

    end_s: when the last phase ended. compare_window_s: the length of the first and the last window, at most half of
    the phases. memory: of each process after the first window and at `end_s`; empty if the service does not run on the
    machine of its callers. has_status: whether the server has GET /status. processes: their names, by id. late_ms,
    lag_ms: how late tries were sent, and how late the event loops of the callers woke up. allowed_lag_ms: beyond it,
    at p99, latencies tell nothing about the server. stolen_share: the share of processor time that other guests of the
    machine's host used.
    """

    model_config = ConfigDict(frozen=True)

    conditions: Conditions
    phases: list[PhaseResult]
    end_s: float
    everything: Counts
    compare_window_s: float
    first: Counts
    last: Counts
    memory: list[Memory]
    has_status: bool
    late_ms: Distribution
    lag_ms: Distribution
    allowed_lag_ms: float
    stolen_share: float
    processes: dict[int, str]
    tries: list[Try]
    samples: list[Sample]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
