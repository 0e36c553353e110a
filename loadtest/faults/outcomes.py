"""The outcome of a stream: its samples and its end, compared with the same request on the undisturbed service."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from loadtest.record import Record
from loadtest.summary import Distribution, distribution

# equal: whole, with the expected samples. different: whole, with other samples or another length. cut: the connection
# ended before the stream did. refused: 429 or 503 with Retry-After. error: another HTTP error. failed: a timeout, no
# connection, or an answer that is no speech.
Ending = Literal["equal", "different", "cut", "refused", "error", "failed"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
_CUT = ("reset", "truncated")
_REFUSALS = (429, 503)


class Outcome(BaseModel):
    """The outcome of one stream. Moments are seconds since the run began.

    request: the number of its request. detail: the code or kind of the error; empty if there is none.
    largest_steps: the largest difference of a sample, in steps of 16 bits, as far as both streams have samples.
    differs_at_s: the position in the stream of the first sample that differs by more than the tolerance, or of the end
    of the shorter stream if a whole stream has another length; None if there is no such sample. A stream that was cut
    is compared up to its end.
    """

    model_config = ConfigDict(frozen=True)

    request: int
    sent_s: float
    end_s: float
    ending: Ending
    detail: str
    identical: bool
    largest_steps: int
    differs_at_s: float | None
    audio_s: float
    first_audio_ms: float | None
    silences: list[tuple[float, float]]


class Counts(BaseModel):
    """The figures of all streams of a phase.

    identical: those that are equal to the last bit. errors, failed: by code or kind. underran: the streams with a
    silence. first_audio_ms: until the first audible sample arrived; a stream without audio counts as longer than any.
    """

    model_config = ConfigDict(frozen=True)

    streams: int
    equal: int
    identical: int
    different: int
    cut: int
    refused: int
    errors: dict[str, int]
    failed: dict[str, int]
    underran: int
    worst_silence_ms: float
    first_audio_ms: Distribution
    largest_steps: int


def judged(record: Record, request: int, expected: bytes, tolerance_steps: int) -> Outcome:
    """Return the outcome of a stream whose samples should be those of `expected`."""
    ending, detail = _ending(record)
    largest, differs_at = compared(expected, record.pcm, tolerance_steps, whole=ending == "equal")
    if ending == "equal" and differs_at is not None:
        ending = "different"
    return Outcome(
        request=request,
        sent_s=record.sent_s,
        end_s=record.end_s,
        ending=ending,
        detail=detail,
        identical=record.error is None and record.pcm == expected,
        largest_steps=largest,
        differs_at_s=None if differs_at is None else differs_at / record.rate_hz,
        audio_s=record.audio_s,
        first_audio_ms=None if record.audible_s is None else record.ttfa_ms,
        silences=record.silences,
    )


def _ending(record: Record) -> tuple[Ending, str]:
    """Return how a stream ended, and the detail of its error. A whole stream counts as equal here."""
    if record.error is None:
        return "equal", ""
    if record.error in _CUT:
        return "cut", record.error
    if record.refusal is None:
        return "failed", record.error
    detail = f"{record.refusal.status} {record.refusal.code or 'without a code'}"
    refused = record.refusal.status in _REFUSALS and record.refusal.retry_after_s is not None
    return "refused" if refused else "error", detail


def compared(expected: bytes, received: bytes, tolerance_steps: int, *, whole: bool) -> tuple[int, int | None]:
    """Return the largest difference of a sample, and the first sample that differs by more than the tolerance.

    whole: streams of different lengths differ at the end of the shorter one. Otherwise the beginnings are compared.
    """
    ours, theirs = (np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.int32) for pcm in (expected, received))
    both = min(len(ours), len(theirs))
    steps = np.abs(ours[:both] - theirs[:both])
    beyond = np.flatnonzero(steps > tolerance_steps)
    first = int(beyond[0]) if len(beyond) else None
    if first is None and whole and len(ours) != len(theirs):
        first = both
    return int(steps.max(initial=0)), first


def counted(outcomes: Sequence[Outcome]) -> Counts:
    """Return the figures of a phase."""
    endings = Counter(outcome.ending for outcome in outcomes)
    silences = [duration for outcome in outcomes for _, duration in outcome.silences]
    heard = [outcome.first_audio_ms for outcome in outcomes if outcome.first_audio_ms is not None]
    counts = Counts(
        streams=len(outcomes),
        equal=endings["equal"],
        identical=sum(outcome.identical for outcome in outcomes),
        different=endings["different"],
        cut=endings["cut"],
        refused=endings["refused"],
        errors=dict(Counter(outcome.detail for outcome in outcomes if outcome.ending == "error")),
        failed=dict(Counter(outcome.detail for outcome in outcomes if outcome.ending == "failed")),
        underran=sum(bool(outcome.silences) for outcome in outcomes),
        worst_silence_ms=round(1000 * max(silences, default=0.0), 1),
        first_audio_ms=distribution(heard, failed=len(outcomes) - len(heard)),
        largest_steps=max((outcome.largest_steps for outcome in outcomes if outcome.ending == "equal"), default=0),
    )
    whole = counts.equal + counts.different
    others = counts.cut + counts.refused + sum(counts.errors.values()) + sum(counts.failed.values())
    assert whole + others == counts.streams, "a stream is counted under no ending, or under two"
    assert counts.identical <= counts.equal, "a stream that is equal to the last bit counts as different"
    return counts
