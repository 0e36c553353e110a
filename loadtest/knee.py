"""The highest rate of arrivals at which a service still keeps two promises: TTFA p95 under a limit, and hardly a stream
spoiled (an underrun, or no whole answer)."""

from collections.abc import Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from loadtest.record import Record
from loadtest.summary import QUANTILES, Run, rank


class Promise(BaseModel):
    """`heard_p95_ms` counts until the first audible sample is played; `spoiled_share` of all streams may be spoiled,
    and None asks only whether they are answered in time."""

    model_config = ConfigDict(frozen=True)

    heard_p95_ms: float
    spoiled_share: float | None = 0.001


class Judge:
    """Sees the records of a trial of `requests` one by one, and knows as soon as it is certain that the promise is
    broken: when more are late, or spoiled, than may be of all of them. Stopping then changes no verdict."""

    def __init__(self, promise: Promise, requests: int) -> None:
        self._promise = promise
        self._late_allowed = requests - rank(QUANTILES["p95"], requests)
        self._spoiled_allowed = (
            requests if promise.spoiled_share is None else int(round(promise.spoiled_share * requests, 6))
        )
        self.late = self.spoiled = 0

    def see(self, record: Record) -> bool:
        """Whether the promise is broken."""
        failed = record.error is not None
        self.late += failed or record.heard_ms > self._promise.heard_p95_ms
        self.spoiled += failed or record.underruns > 0
        return self.broken

    @property
    def broken(self) -> bool:
        return self.late > self._late_allowed or self.spoiled > self._spoiled_allowed


class Trial(BaseModel):
    """`run` covers what had ended until the trial was stopped, if `stopped`. `late` took longer than promised. Nothing
    is `kept` where the generator did not keep up."""

    model_config = ConfigDict(frozen=True)

    rate: float
    requests: int
    kept: bool
    stopped: bool
    late: int
    spoiled: int
    run: Run


class Knee(BaseModel):
    """The promise was kept at `rate` (0: nowhere), in two runs with other arrivals, and broken at `broken_at` (None: at
    no rate that was tried)."""

    model_config = ConfigDict(frozen=True)

    promise: Promise
    rate: float
    broken_at: float | None
    trials: list[Trial]

    @property
    def generators(self) -> bool:
        """Whether it may be the generator's knee: it was the one that did not keep up at `broken_at`."""
        return any(not trial.run.self_check.valid for trial in self.trials if trial.rate == self.broken_at)


def kept_at(knee: Knee, heard_p95_ms: float) -> tuple[float, float | None]:
    """The highest rate at which all trials kept `heard_p95_ms`, too, which is no more than was promised (0: none), and
    the lowest at which one did not."""
    assert heard_p95_ms <= knee.promise.heard_p95_ms

    def kept(trial: Trial) -> bool:
        p95 = trial.run.everything.heard_ms["p95"]
        return trial.kept and p95 is not None and p95 <= heard_p95_ms

    broken = min((trial.rate for trial in knee.trials if not kept(trial)), default=None)
    good = [trial.rate for trial in knee.trials if broken is None or trial.rate < broken]
    return max(good, default=0.0), broken


class TryRate(Protocol):
    def __call__(self, rate: float, attempt: int) -> Trial:
        """A trial at `rate`; another `attempt` has other arrivals."""


def find_knee(
    try_rate: TryRate, promise: Promise, *, lowest: float, highest: float, tolerance: float,
    seen: Callable[[Trial], None] = lambda _: None,
) -> Knee:  # fmt: skip
    """Double the rate from `lowest` until the promise is broken (or `highest` is reached), then halve the ratio between
    kept and broken until it is at most 1 + `tolerance`. A rate counts as kept after two trials: one alone may have been
    lucky, and the luck would be the result."""
    trials: list[Trial] = []

    def kept(rate: float) -> bool:
        for attempt in range(2):
            trial = try_rate(rate, attempt)
            trials.append(trial)
            seen(trial)
            if not trial.kept:
                return False
        return True

    good, bad, rate = 0.0, None, lowest
    while bad is None and good < highest:
        if kept(rate):
            good, rate = rate, min(2 * rate, highest)
        else:
            bad = rate
    while bad is not None and good and bad / good > 1 + tolerance:
        rate = (good * bad) ** 0.5
        if kept(rate):
            good = rate
        else:
            bad = rate
    return Knee(promise=promise, rate=good, broken_at=bad, trials=trials)


def fewest_requests(promise: Promise) -> int:
    """A trial of fewer cannot tell a promise that is kept from one that is not: one late or spoiled stream by chance
    would break it, however rare they are."""
    late = 20  # of which one may exceed the 95th percentile
    return late if not promise.spoiled_share else max(late, round(1 / promise.spoiled_share))
