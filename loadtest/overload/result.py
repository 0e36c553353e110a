"""The result file of an overload."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from loadtest.memory import Memory
from loadtest.result import Conditions
from loadtest.summary import Distribution
from loadtest.tries import Counts, Try


class Plain(BaseModel):
    """A request that was sent alone, before and after the overload. error: of the request after it."""

    model_config = ConfigDict(frozen=True)

    first_audio_before_ms: float
    first_audio_after_ms: float | None
    total_before_ms: float
    total_after_ms: float | None
    error: str | None


class OverloadResult(BaseModel):
    """The outcome of an overload. Moments are seconds since the arrivals began.

    arrivals_end_s: when the last request was due for the first time. second_during, second_after: second tries that
    were due before this moment and after it. untried: refused requests whose second try was due later than
    `second_try_within_s` after it. memory: empty if the service does not run on the machine of its callers. late_ms,
    lag_ms: how late tries were sent, and how late the event loop of the callers woke up. allowed_lag_ms: beyond it, at
    p99, latencies tell nothing about the server.
    """

    model_config = ConfigDict(frozen=True)

    conditions: Conditions
    arrivals_end_s: float
    second_try_within_s: float
    recovery_after_s: float
    first: Counts
    second_during: Counts
    second_after: Counts
    untried: int
    plain: list[Plain]
    memory: list[Memory]
    late_ms: Distribution
    lag_ms: Distribution
    allowed_lag_ms: float
    tries: list[Try]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
