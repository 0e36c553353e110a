"""Decides which sequences run in the next step. Plain Python: slots and a queue, no tensors."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qwen_tts.engine.pace import Pace, Verdict
from qwen_tts.engine.sequence import Frame, Sequence, Status
from qwen_tts.errors import Overloaded, RequestFailed
from qwen_tts.request import FinishReason

# A CPU reads these in about the time of two frames, at the 0.6B shape in bfloat16.
PREFILL_ROWS = 32
# A sequence whose listener hears other audio first begins this long before that audio ends. Its first chunk is a large
# one, and under load the streams are hardly faster than real time.
_LEAD_S = 1.0


@dataclass(frozen=True)
class Plan:
    """One step.

    The `running` sequences read their newest frame. The `newcomer` reads `rows` of its prompt, none if there is no time
    for it. Then the `sequences` get a frame. The `paused` ones keep their slots and wait for text.
    """

    newcomer: Sequence | None
    rows: range
    running: tuple[Sequence, ...]
    paused: tuple[Sequence, ...] = ()

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """The running ones, and the newcomer if this step reads the last of its rows."""
        if self.newcomer is None or self.rows.stop < self.newcomer.prefill_rows:
            return self.running
        return (*self.running, self.newcomer)

    @property
    def members(self) -> tuple[Sequence, ...]:
        """The sequences that this step computes something for. The newcomer is the last."""
        return (*self.running, self.newcomer) if self.newcomer is not None and self.rows else self.running

    def part(self, members: tuple[Sequence, ...]) -> "Plan":
        """Return the step that computes for `members` only. The other sequences pause.

        The parts of a plan are made and booked one after the other, in the order of `members`.
        """
        running = tuple(sequence for sequence in self.running if sequence in members)
        others = (sequence for sequence in (*self.running, *self.paused) if sequence not in members)
        rows = self.rows if self.newcomer in members else range(self.rows.start, self.rows.start)
        return Plan(self.newcomer, rows, running, tuple(one for one in others if one.status is Status.RUNNING))

    @property
    def height(self) -> int:
        """Rows of the pools that the running ones take: one more than their highest slot."""
        return _height(self.running)


class Scheduler:
    """Gives `slots` to sequences in the order in which their listeners want the first audio.

    That is first come, first served, except that a listener with other audio to hear first comes later by its length,
    less a lead. Resumed sequences come before all others, because their listeners have heard the beginning. The queue
    and the pace never keep them out.
    One newcomer at a time reads its prompt, `prefill_rows` of it in a step, so running rows never wait for more than
    that. The lowest free slot is used first, which keeps the running rows together at the start of the pools.
    """

    def __init__(
        self,
        slots: int,
        max_waiting: int,
        prefill_rows: int = PREFILL_ROWS,
        clock: Callable[[], float] = time.monotonic,
        known_rows: Callable[[Sequence], int] = lambda newcomer: 0,
    ) -> None:
        """known_rows: returns the number of rows at the start of a newcomer's prompt that need not be read."""
        self.slots = slots
        self.max_waiting = max_waiting
        self.prefill_rows = prefill_rows
        self.pace: Pace | None = None  # if set, newcomers wait while they would make running streams late
        self.clock = clock
        self._known_rows = known_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._newcomer: Sequence | None = None  # also in `running`
        self._free = list(range(slots))

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing: every running sequence is paused, and no other can start."""
        awake = any(sequence.cancel_requested or not sequence.paused for sequence in self.running)
        return not awake and not (self.waiting and self._free)

    @property
    def free_slots(self) -> int:
        return len(self._free)

    @property
    def capacity(self) -> int:
        """The number of streams that can run in time, by the steps that have been seen."""
        return self.slots if self.pace is None else self.pace.most_in_time(self.slots)

    @property
    def least_headroom_s(self) -> float | None:
        """The least audio that a listener of a running stream has in hand. None if no listener plays."""
        now = self.clock()
        playing = (s.playback for s in self.running if s.playback.first_sent is not None and not s.paused)
        return min((playback.headroom(now) for playback in playing), default=None)

    @property
    def half_idle(self) -> bool:
        """Whether half of the slots, and half of the time of a step, would be left after one stream more."""
        if self.waiting:
            return False
        if not self.running:
            return True
        easy = self.pace is None or self.pace.is_easy(_height(self.running))
        return easy and 2 * (len(self.running) + 1) <= self.slots

    def add(self, sequence: Sequence) -> None:
        """Queue `sequence`. Raises Overloaded if `max_waiting` sequences are queued already.

        Sequences for which there is a free slot do not count as queued, unless the free slots cannot be used in time.
        A sequence that has all its frames ends at once.
        """
        assert sequence.status is Status.WAITING, f"a sequence that is {sequence.status.value} was submitted"
        assert sequence not in self.waiting, "a sequence was submitted twice"
        if sequence.full:
            _finish(sequence, "length")
            return
        if not sequence.resumed_frames:
            self._refuse_when_full()
        self.waiting.append(sequence)

    def _refuse_when_full(self) -> None:
        if len(self.waiting) >= self.max_waiting and self._free and self._one_more() == "no":
            running, waiting = len(self.running), self.max_waiting
            raise Overloaded(f"{running} streams are all that can be kept in time and {waiting} requests are waiting")
        if len(self.waiting) - len(self._free) >= self.max_waiting:
            raise Overloaded(f"all {self.slots} slots are busy and {self.max_waiting} requests are waiting")

    def cancel(self, sequence: Sequence) -> None:
        """End `sequence`: now if it waits, at the end of the current step if it runs. Finished ones do not change."""
        if sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
            _finish(sequence, "cancelled")
        elif sequence.status is Status.RUNNING:
            sequence.cancel_requested = True

    def schedule(self) -> Plan:
        """Give a slot to the next sequence if there is one, and return the plan of the next step."""
        self._drop_cancelled()
        first = min(self.waiting, key=lambda one: (not one.resumed_frames, _begins_by(one)), default=None)
        if first is not None and self._newcomer is None and self._free and self._may_start(first):
            first.slot = heapq.heappop(self._free)
            first.status = Status.RUNNING
            first.started_s = self.clock()
            first.rows_read = first.rows_reused = self._known_rows(first)
            self.running.append(first)
            self._newcomer = first
            self.waiting.remove(first)  # last, so that `abort` finds it after an interruption
        newcomer = self._newcomer
        paused = tuple(s for s in self.running if s.paused)  # read once: text may be written at any moment
        running = tuple(s for s in self.running if s is not newcomer and s not in paused)
        if newcomer is None:
            return Plan(None, range(0), running, paused)
        # Always cut at the same rows, so that a request's numbers do not depend on others that run.
        rows = range(newcomer.rows_read, min(newcomer.rows_read + self.prefill_rows, newcomer.reading_to))
        if self.pace is not None and running:
            now = self.clock()
            least_s = min(sequence.playback.headroom(now) for sequence in running)
            urgent = newcomer.resumed_frames and newcomer.playback.headroom(now) < least_s
            if not urgent and not self.pace.can_read(_height(running), least_s):
                rows = range(rows.start, rows.start)
        return Plan(newcomer, rows, running, paused)

    def update(self, plan: Plan, frames: dict[int, Frame | None]) -> None:
        """Book the result of a step. frames: by slot, the new frame, or None where the talker ended the utterance.

        A planned slot that is missing in `frames` has numbers that are not finite, and its sequence fails. Other
        threads read a sequence without the engine's lock. So a frame is appended before the reason is set, and the
        reason is set before the status says finished.
        """
        assert plan.newcomer is self._newcomer, "the newcomer changed within a step"
        planned = {sequence.slot for sequence in plan.sequences}
        assert frames.keys() <= planned, f"frames for slots {frames.keys() - planned}, which were not planned"
        if plan.newcomer is not None:
            assert plan.rows.start == plan.newcomer.rows_read, "rows of the prompt were skipped or read twice"
            plan.newcomer.rows_read = plan.rows.stop
            if plan.newcomer in plan.sequences:
                self._newcomer = None
        for sequence in plan.sequences:
            assert sequence.slot is not None
            if sequence.cancel_requested:
                self._release(sequence, "cancelled")
            elif sequence.slot not in frames:
                self.fail(sequence, RequestFailed("the model's numbers for this request are not finite"))
            elif (frame := frames[sequence.slot]) is None:
                self._release(sequence, "stop")
            else:
                sequence.append(frame, self.clock())
                if sequence.full:
                    self._release(sequence, "length")
        self.check()

    def fail(self, sequence: Sequence, failure: RequestFailed) -> None:
        """End a running sequence that cannot be computed."""
        sequence.failure = failure
        self._release(sequence, "failed")

    def abort(self) -> None:
        """End every sequence as cancelled, because a step has failed or the engine is closing."""
        for sequence in (*self.running, *self.waiting):
            sequence.slot = None
            _finish(sequence, "cancelled")
        # Whatever was interrupted, no sequence holds a slot now.
        self.running.clear()
        self._newcomer = None
        self.waiting.clear()
        self._free = list(range(self.slots))

    def check(self) -> None:
        """Assert that every slot is free or has exactly one owner, and that every owner runs."""
        used = [sequence.slot for sequence in self.running]
        owners = sorted(-1 if slot is None else slot for slot in [*used, *self._free])
        assert owners == list(range(self.slots)), f"slots in use: {used}, free: {self._free}"
        assert all(sequence.status is Status.RUNNING for sequence in self.running), "a running sequence has finished"
        assert self._newcomer is None or self._newcomer in self.running, "the newcomer has left"

    def _may_start(self, sequence: Sequence) -> bool:
        return bool(sequence.resumed_frames) or self._one_more() == "yes"

    def _one_more(self) -> Verdict:
        """Whether one stream more, in the lowest free slot, leaves the running ones in time."""
        slot = min(self._free)
        awake = [sequence for sequence in self.running if not sequence.paused]
        if self.pace is None or not awake:
            return "yes"
        if slot < _height(self.running):  # an idle row below the highest one is computed in any case
            return "yes"
        verdict = self.pace.allows(slot + 1)
        if verdict == "unknown" and len(awake) < len(self.running):
            # The steps of all that run are seen only when none pauses, which may never happen.
            return "yes"
        return verdict

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in self.running if s.cancel_requested]:
            self._release(sequence, "cancelled")

    def _release(self, sequence: Sequence, reason: FinishReason) -> None:
        assert sequence.slot is not None
        _finish(sequence, reason)
        self.running.remove(sequence)
        if sequence is self._newcomer:
            self._newcomer = None
        heapq.heappush(self._free, sequence.slot)
        sequence.slot = None


def _begins_by(sequence: Sequence) -> float:
    """Return the time by which a sequence that waits should begin. Silence within speech is worse than a late word."""
    playback = sequence.playback
    return playback.ends - (_LEAD_S if playback.ahead else 0.0)


def _height(sequences: Iterable[Sequence]) -> int:
    return max((sequence.slot for sequence in sequences if sequence.slot is not None), default=-1) + 1


def _finish(sequence: Sequence, reason: FinishReason) -> None:
    sequence.finish_reason = reason
    sequence.status = Status.FINISHED
