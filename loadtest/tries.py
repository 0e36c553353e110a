"""The tries of requests in an open loop: admitted, refused, not ready or failed."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from loadtest.record import Record
from loadtest.summary import Distribution, distribution

# admitted: a whole stream. refused: 429. not ready: 503. failed: everything else, also a stream that was cut.
Ending = Literal["admitted", "refused", "not ready", "failed"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
_REFUSED, _NOT_READY = 429, 503
# A request that is refused later has waited for a place.
AT_ONCE_MS = 500.0


class Try(BaseModel):
    """One try of a request. Moments are seconds since the run began.

    second: the request was refused before, and was sent again at the time of `Retry-After`. due_s: when it was due,
    from which its latencies count. error: the kind of a failure, or of an answer that the service is not ready.
    retry_after_s: of an answer with 429 or 503; None if it had none. first_audio_ms: until the first audible sample
    arrived, of an admitted try.
    """

    model_config = ConfigDict(frozen=True)

    request: int
    second: bool
    due_s: float
    end_s: float
    ending: Ending
    error: str | None
    retry_after_s: float | None
    first_audio_ms: float | None
    silences: list[tuple[float, float]]

    @property
    def total_ms(self) -> float:
        return 1000 * (self.end_s - self.due_s)


class Counts(BaseModel):
    """The figures of many tries.

    refused_at_once, refused_later: within AT_ONCE_MS, and after that. untimed: refusals without `Retry-After`.
    not_ready, errors: of tries with these endings, by kind. refusal_ms: the time until a refusal. retry_after_s: of
    refused tries and those that were not ready. first_audio_ms: of admitted tries only, and so are underran (streams
    with a silence), underruns and worst_silence_ms.
    """

    model_config = ConfigDict(frozen=True)

    tries: int
    admitted: int
    refused_at_once: int
    refused_later: int
    untimed: int
    not_ready: dict[str, int]
    errors: dict[str, int]
    refusal_ms: Distribution
    retry_after_s: Distribution
    first_audio_ms: Distribution
    underran: int
    underruns: int
    worst_silence_ms: float

    @property
    def refused(self) -> int:
        return self.refused_at_once + self.refused_later


def again_at_s(record: Record) -> float | None:
    """Return when a request is to be sent again: exactly at the time that its refusal said; None if it said none."""
    if record.refusal is None or record.refusal.status != _REFUSED or record.refusal.retry_after_s is None:
        return None
    return record.end_s + record.refusal.retry_after_s


def judged(record: Record, *, second: bool) -> Try:
    """Return the try that a record is of."""
    ending = _ending(record)
    answered = ending in ("refused", "not ready")
    return Try(
        request=record.index,
        second=second,
        due_s=record.scheduled_s,
        end_s=record.end_s,
        ending=ending,
        error={"admitted": None, "refused": None, "not ready": _starting(record), "failed": record.error}[ending],
        retry_after_s=record.refusal.retry_after_s if answered and record.refusal is not None else None,
        first_audio_ms=record.ttfa_ms if ending == "admitted" else None,
        silences=record.silences if ending == "admitted" else [],
    )


def _ending(record: Record) -> Ending:
    if record.error is None:
        return "admitted"
    status = None if record.refusal is None else record.refusal.status
    return "refused" if status == _REFUSED else "not ready" if status == _NOT_READY else "failed"


def _starting(record: Record) -> str | None:
    """Return the kind of an answer that the service is not ready, or None for another answer."""
    if record.refusal is None:
        return None
    untimed = " without Retry-After" if record.refusal.retry_after_s is None else ""
    return f"{record.refusal.code or 'no code'}{untimed}"


def counted(tries: Sequence[Try]) -> Counts:
    """Return the figures of the tries."""
    refused = [one for one in tries if one.ending == "refused"]
    at_once = sum(one.total_ms <= AT_ONCE_MS for one in refused)
    silences = [duration for one in tries for _, duration in one.silences]
    counts = Counts(
        tries=len(tries),
        admitted=sum(one.ending == "admitted" for one in tries),
        refused_at_once=at_once,
        refused_later=len(refused) - at_once,
        untimed=sum(one.retry_after_s is None for one in refused),
        not_ready=_by_kind(tries, "not ready"),
        errors=_by_kind(tries, "failed"),
        refusal_ms=distribution(one.total_ms for one in refused),
        retry_after_s=distribution(one.retry_after_s for one in refused if one.retry_after_s is not None),
        first_audio_ms=distribution(one.first_audio_ms for one in tries if one.first_audio_ms is not None),
        underran=sum(bool(one.silences) for one in tries),
        underruns=len(silences),
        worst_silence_ms=round(1000 * max(silences, default=0.0), 1),
    )
    ended = counts.admitted + counts.refused + sum(counts.not_ready.values()) + sum(counts.errors.values())
    assert ended == counts.tries, "a try is counted under no ending, or under two"
    return counts


def _by_kind(tries: Sequence[Try], ending: Ending) -> dict[str, int]:
    return dict(Counter(one.error for one in tries if one.ending == ending and one.error is not None))
