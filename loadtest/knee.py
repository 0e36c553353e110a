"""The search for the knee: the highest rate of arrivals at which a service keeps a promise.

The promise has two parts: TTFA p95 is under a limit, and hardly any stream is spoiled (it underran, or had no whole
answer).
"""

from collections.abc import Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from loadtest.record import Record
from loadtest.summary import QUANTILES, Run, rank


class Promise(BaseModel):
    """The limits.

    heard_p95_ms: of the time until the first audible sample is played. spoiled_share: of all streams that may be
    spoiled; None sets no limit, so only the TTFA counts.
    """

    model_config = ConfigDict(frozen=True)

    heard_p95_ms: float
    spoiled_share: float | None = 0.001


class Judge:
    """The judge of a trial of `requests` requests, which receives the records one by one.

    The promise counts as broken as soon as more requests are late, or spoiled, than the limits allow for all requests.
    Stopping the trial then does not change the verdict.
    """

    def __init__(self, promise: Promise, requests: int) -> None:
        self._promise = promise
        self._requests, self._seen = requests, 0
        self._late_allowed = requests - rank(QUANTILES["p95"], requests)
        self._spoiled_allowed = (
            requests if promise.spoiled_share is None else int(round(promise.spoiled_share * requests, 6))
        )
        self.late = self.spoiled = 0

    def see(self, record: Record) -> bool:
        """Count one record; return whether the promise is broken."""
        self._seen += 1
        assert self._seen <= self._requests, "the limits are for fewer requests than there are records"
        failed = record.error is not None
        self.late += failed or record.heard_ms > self._promise.heard_p95_ms
        self.spoiled += failed or record.underruns > 0
        return self.broken

    @property
    def broken(self) -> bool:
        return self.late > self._late_allowed or self.spoiled > self._spoiled_allowed


class Trial(BaseModel):
    """One trial at one rate.

    kept: whether the promise was kept; false if the generator did not keep up. stopped: whether the trial ended early;
    `run` then covers the requests that had ended. late: the requests whose TTFA was above the limit, or that failed.
    """

    model_config = ConfigDict(frozen=True)

    rate: float
    requests: int
    kept: bool
    stopped: bool
    late: int
    spoiled: int
    run: Run


class Knee(BaseModel):
    """The result of a search.

    rate: the highest rate at which two trials with different arrivals kept the promise; 0 if there is none.
    broken_at: the lowest rate at which the promise was broken; None if no tried rate broke it.
    """

    model_config = ConfigDict(frozen=True)

    promise: Promise
    rate: float
    broken_at: float | None
    trials: list[Trial]

    @property
    def generators(self) -> bool:
        """Whether this may be the knee of the generator: the generator did not keep up at `broken_at`."""
        return any(not trial.run.self_check.valid for trial in self.trials if trial.rate == self.broken_at)


def kept_at(knee: Knee, heard_p95_ms: float) -> tuple[float, float | None]:
    """Judge the trials again by a stricter limit `heard_p95_ms`.

    Returns the highest rate whose trials all kept it (0: none), and the lowest rate of a trial that did not (None: all
    did).
    """
    assert heard_p95_ms <= knee.promise.heard_p95_ms, "trials stop early at the promised limit: a wider one is unknown"

    def kept(trial: Trial) -> bool:
        p95 = trial.run.everything.heard_ms["p95"]
        return trial.kept and p95 is not None and p95 <= heard_p95_ms

    broken = min((trial.rate for trial in knee.trials if not kept(trial)), default=None)
    good = [trial.rate for trial in knee.trials if broken is None or trial.rate < broken]
    return max(good, default=0.0), broken


class TryRate(Protocol):
    def __call__(self, rate: float, attempt: int) -> Trial:
        """Run a trial at `rate`. Another `attempt` has other arrival times."""


def find_knee(
    try_rate: TryRate, promise: Promise, *, lowest: float, highest: float, tolerance: float,
    seen: Callable[[Trial], None] = lambda _: None,
) -> Knee:  # fmt: skip
    """Search for the knee; `seen` receives every trial.

    First the rate is doubled from `lowest` until the promise is broken or `highest` is reached. Then the geometric mean
    of the kept and the broken rate is tried, until their ratio is at most 1 + `tolerance`. A rate counts as kept only
    after two trials, because a single trial may be lucky.
    """
    assert lowest > 0, "doubling a rate of 0 never ends"
    assert tolerance > 0, "the ratio of two rates never becomes exactly 1"
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
    assert bad is None or good < bad, f"the promise was kept at {good} and broken at the lower rate {bad}"
    return Knee(promise=promise, rate=good, broken_at=bad, trials=trials)


def fewest_requests(promise: Promise) -> int:
    """Return the smallest useful number of requests of a trial.

    In a smaller trial a single late or spoiled stream, which may be chance, breaks the promise.
    """
    late = 20  # one of 20 may exceed the 95th percentile
    return late if not promise.spoiled_share else max(late, round(1 / promise.spoiled_share))
