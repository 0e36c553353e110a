"""The result file of a run under faults."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from loadtest.faults.outcomes import Counts, Outcome
from loadtest.faults.schedule import Action, Kind
from loadtest.result import Conditions
from loadtest.summary import Distribution


class Struck(BaseModel):
    """A fault that was due. what: what was struck; why nothing was, if it did not happen."""

    model_config = ConfigDict(frozen=True)

    at_s: float
    kind: Kind
    action: Action
    happened: bool
    what: str


class FaultResult(BaseModel):
    """Streams on the undisturbed service, and the same streams under faults.

    tolerance_steps: samples that differ by at most this count as equal. streams: those under faults. leavers,
    slow_readers: how many of them ended how. lag_ms: how late the event loop of the callers woke up under faults.
    allowed_lag_ms: beyond it, at p99, latencies and silences tell nothing about the server.
    """

    model_config = ConfigDict(frozen=True)

    conditions: Conditions
    tolerance_steps: int
    for_s: float
    undisturbed: Counts
    disturbed: Counts
    faults: list[Struck]
    leavers: dict[str, int]
    slow_readers: dict[str, int]
    lag_ms: Distribution
    allowed_lag_ms: float
    streams: list[Outcome]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
