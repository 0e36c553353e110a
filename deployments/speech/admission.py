"""Admission at the edge: a stream starts now, waits for a bounded time, or is refused with the time to come back.

Every stream of the service begins here, before any work of a replica. A place is held until all audio of the stream is
made. The number of places is learned (`stream_limit.py`). Refused requests are remembered (`promises.py`).
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import get_args

from deployments.speech.edge_metrics import EdgeMetrics, LineState, Reason
from deployments.speech.promises import LONGEST_S, Promises
from deployments.speech.stream_limit import LONGEST_GAP_S, StreamLimit
from deployments.speech.terms import RANKS, Rank, Terms
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded

# A further stream of a request gets a place over the limit when its audio is due within this time. It must then be made
# in time for sure, and the time at which it is due is an estimate.
_URGENT_S = 5.0
# The first audio should come within this time after the place, or when other audio has been heard. Later audio shows
# that a replica has a queue.
_FIRST_AUDIO_S = 1.0
# The factor on expected waits: how it grows when a request has waited in vain, up to how much, and how it falls with
# each place that is given. So about one request waits in vain for 70 that are admitted.
_MORE_CAUTION, _MOST_CAUTION, _LESS_CAUTION = 2.0, 4.0, 0.99
# The share of the places that is promised to refused requests. The rest is for the randomness of arrivals, and for a
# limit that shrinks before they come back.
_PROMISED = 0.5
_JUDGE_AGAIN_S = 0.1  # while the limit grows fast
_USUAL_WAIT_S = 2.0  # the longest wait of a request whose expected wait is shown
_USUAL_HOLD_S = 3.0  # until it is measured
_WEIGHT = 0.1  # of the newest stream in the average of holding times


@dataclass(eq=False)
class _Waiting:
    rank: Rank
    deadline: float
    number: int  # of all requests, in the order in which they came
    counts: Callable[[], bool]
    admitted: "asyncio.Future[Place]"

    @property
    def order(self) -> tuple[Rank, int]:
        return self.rank, self.number


class Place:
    """The place of one stream. It is free again after the last chunk, or at the end of the context."""

    def __init__(self, line: "_Line", counts: Callable[[], bool], now: float) -> None:
        """`counts` returns whether the stream needs the machine: one whose writer may pause does not."""
        self.counts = counts
        self.counted_s = 0.0  # the time in which the stream needed the machine
        self._line = line
        self._given_s = self._latest_s = now
        # Without other audio of the model, the first audio may come late because a replica starts.
        self._may_be_late = line.making == 0
        self.last = line.in_use + 2 > line.limit.limit  # with this stream, the line is full
        self._playback = Playback(requested=now)
        self._steady = counts()  # the stream counted when its latest chunk came

    @property
    def begun(self) -> bool:
        return self._playback.first_sent is not None

    def made(self, audio_s: float, *, ahead_s: float = 0.0, last: bool = False, steady: bool = True) -> None:
        """Count a chunk of audio, which may be empty. The listener hears `ahead_s` of other audio first.

        Not `steady`: the delay of the chunk says nothing about the speed of the replicas.
        """
        now, playback, limit = time.monotonic(), self._playback, self._line.limit
        steady = self.count(now) and steady
        if not self.begun:
            playback.ahead = ahead_s
            if steady and not self._may_be_late and now - self._given_s > max(_FIRST_AUDIO_S, ahead_s):
                limit.late()
        if audio_s > 0:
            underruns = playback.underruns
            gap_s = playback.send(audio_s, now)
            if gap_s is not None and steady:
                if playback.underruns > underruns:
                    limit.late()
                limit.observe(audio_s, gap_s, self._line.in_use, self._line.making)
        if last:
            self._line.release(self)
        self._line.admit()

    def count(self, now: float) -> bool:
        """Count the time since the latest chunk, and return whether the stream needed the machine all the time."""
        steady, self._steady = self._steady, self.counts()
        steady = steady and self._steady
        if steady:
            self.counted_s += min(now - self._latest_s, LONGEST_GAP_S)
        self._latest_s = now
        return steady


class _Line:
    """The places of one model, and the requests that wait for one."""

    def __init__(self, model: str, metrics: EdgeMetrics | None) -> None:
        self.limit = StreamLimit()
        self._model = model
        self._metrics = metrics
        self._promises = Promises()
        self._held: set[Place] = set()
        self._waiting: set[_Waiting] = set()
        self._numbers = count()
        self._hold_s = _USUAL_HOLD_S
        self._refusals = Counter[Reason]()
        self._caution = 1.0

    @property
    def in_use(self) -> int:
        return sum(place.counts() for place in self._held)

    @property
    def making(self) -> int:
        """The streams in use that have audio already."""
        return sum(place.begun and place.counts() for place in self._held)

    @property
    def _per_s(self) -> float:
        """Places that become free in a second (Little's law)."""
        places = self.limit.limit if math.isfinite(self.limit.limit) else max(1, len(self._held))
        return places / max(self._hold_s, 0.01)

    async def enter(self, terms: Terms, counts: Callable[[], bool]) -> Place:
        """Wait for a place for a new request. Raises Overloaded."""
        now = time.monotonic()
        returning, new = RANKS[terms.priority]
        rank = returning if self._promises.returns(terms.key, now) else new
        waiting = self._queue(rank, now + terms.max_wait_s, counts)
        try:
            if not waiting.admitted.done():
                await self._wait(waiting, terms)
            place = waiting.admitted.result()
        except BaseException:
            self._leave(waiting)
            raise
        if self._metrics is not None:
            self._metrics.waited(self._model, terms.priority, time.monotonic() - now)
        return place

    async def _wait(self, waiting: _Waiting, terms: Terms) -> None:
        """Wait for the place. Raises Overloaded when the time is up, or at once if the wait is likely to be longer.

        While the limit grows fast, nobody knows how long the wait is. So it is judged when the growth has ended.
        """
        now = time.monotonic()
        while self.limit.growing_fast and now < waiting.deadline:
            await asyncio.wait([waiting.admitted], timeout=min(_JUDGE_AGAIN_S, waiting.deadline - now))
            if waiting.admitted.done():
                return
            now = time.monotonic()
        expected_s = self._expected_s(waiting.rank, waiting.deadline, waiting.number, now)
        if self._metrics is not None:
            self._metrics.expected(self._model, expected_s)
        reason: Reason = "wait"
        left_s = max(0.0, waiting.deadline - now)
        if expected_s <= left_s:
            await asyncio.wait([waiting.admitted], timeout=left_s)
            if waiting.admitted.done():
                return
            self._caution = min(_MOST_CAUTION, _MORE_CAUTION * self._caution)
            reason = "expired"
        self._waiting.remove(waiting)
        raise self.refusal(terms, reason)

    async def enter_further(self, due_s: float, counts: Callable[[], bool]) -> Place:
        """Wait for a place for a further stream, whose audio is due in `due_s`. It is over the limit if need be.

        A stream that nobody waits for (`math.inf`) is never over the limit.
        """
        now = time.monotonic()
        waiting = self._queue(Rank.BATCH if math.isinf(due_s) else Rank.FURTHER, now + due_s, counts)
        try:
            if due_s > _URGENT_S:
                await asyncio.wait([waiting.admitted], timeout=None if math.isinf(due_s) else due_s - _URGENT_S)
            if not waiting.admitted.done():
                self._give(waiting)
            return waiting.admitted.result()
        except BaseException:
            self._leave(waiting)
            raise

    def release(self, place: Place) -> None:
        if place in self._held:
            self._held.remove(place)
            place.count(time.monotonic())
            self._hold_s += _WEIGHT * (place.counted_s - self._hold_s)
            self.admit()

    def admit(self) -> None:
        """Give free places to the requests that wait, in their order."""
        while self._waiting:
            if self.in_use + 1 > self.limit.limit:
                self.limit.full()
                break
            self._give(min(self._waiting, key=lambda waiting: waiting.order))
        if self._metrics is not None:
            self._metrics.places(self._model, self.limit.limit, self.in_use)

    def refusal(self, terms: Terms, reason: Reason) -> Overloaded:
        """Return the refusal of a request, with the seconds after which it may come back."""
        self._refusals[reason] += 1
        if self._metrics is not None:
            self._metrics.refused(self._model, reason)
        each_s = 1 / (_PROMISED * self._per_s)
        line = len(self._waiting) + max(0.0, self.in_use - self.limit.limit) + 1
        wait_s = min(line * each_s, LONGEST_S)
        wait_s = self._promises.promise(terms.key, terms.caller, time.monotonic(), wait_s, each_s)
        seconds = max(1, math.ceil(wait_s))
        message = f"the service has as many streams of {self._model} as it can make in time; try again in {seconds} s"
        return Overloaded(message, float(seconds))

    def _queue(self, rank: Rank, deadline: float, counts: Callable[[], bool]) -> _Waiting:
        waiting = _Waiting(rank, deadline, next(self._numbers), counts, asyncio.get_running_loop().create_future())
        self._waiting.add(waiting)
        self.admit()
        return waiting

    def _give(self, waiting: _Waiting) -> None:
        assert not waiting.admitted.done(), "a request got two places"
        self._waiting.remove(waiting)
        place = Place(self, waiting.counts, time.monotonic())
        self._held.add(place)
        self._caution = max(1.0, _LESS_CAUTION * self._caution)
        waiting.admitted.set_result(place)
        if self.in_use + 1 > self.limit.limit:
            self.limit.full()

    def _leave(self, waiting: _Waiting) -> None:
        """Undo a request that was refused or cancelled, maybe in the moment in which it got its place."""
        self._waiting.discard(waiting)
        if waiting.admitted.done():
            self._held.remove(waiting.admitted.result())
        self.admit()

    def state(self) -> LineState:
        now, limit = time.monotonic(), self.limit.limit
        expected_s = self._expected_s(Rank.INTERACTIVE, now + _USUAL_WAIT_S, math.inf, now)
        wait_s = 0.0 if self.in_use + 1 <= limit else expected_s
        refusals = {reason: self._refusals[reason] for reason in get_args(Reason)}
        return LineState(None if math.isinf(limit) else limit, self.in_use, len(self._waiting), wait_s, refusals)

    def _expected_s(self, rank: Rank, deadline: float, number: float, now: float) -> float:
        """Return the time within which a request that waits is likely to get its place: in five of six cases."""
        before = float(sum(waiting.order < (rank, number) for waiting in self._waiting))
        before += max(0.0, self.in_use - self.limit.limit)
        caution = 1.0 if rank is Rank.RETURNING else self._caution
        if rank is not Rank.RETURNING:
            before += self._promises.expected(now, deadline)
        # The next place becomes free after half of the usual time on average. The times of n places vary by the square
        # root of n.
        return caution * (before + 0.5 + math.sqrt(before)) / self._per_s


class Admission:
    """The admission of one ingress replica. Each model has its own limit and its own line.

    Several ingress replicas learn their limits separately, from their own streams.
    """

    def __init__(self, metrics: EdgeMetrics | None = None) -> None:
        """`metrics` is None outside a replica."""
        self._metrics = metrics
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def place(
        self, model: str, terms: Terms, *, due_s: float | None = None, counts: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Place]:
        """Wait for a place of `model` and hold it. Raises Overloaded.

        `due_s` is for a further stream of a request that has begun: the time until its audio is wanted. It is never
        refused. `counts` returns whether the stream counts towards the limit at the moment.
        """
        line = self._line(model)
        place = await (line.enter(terms, counts) if due_s is None else line.enter_further(due_s, counts))
        try:
            yield place
        finally:
            line.release(place)

    def replica_is_full(self, model: str) -> None:
        """Note that a replica's own queue was full, while the refused stream still has its place."""
        self._line(model).limit.refused()

    def refusal(self, model: str, terms: Terms) -> Overloaded:
        """Return the refusal of a request that a replica did not accept in time."""
        return self._line(model).refusal(terms, "replica")

    def state(self, model: str) -> LineState:
        return self._line(model).state()

    def _line(self, model: str) -> _Line:
        if model not in self._lines:
            self._lines[model] = _Line(model, self._metrics)
        return self._lines[model]
