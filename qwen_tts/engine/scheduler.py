"""Who runs in the next step. Plain Python: slots, a queue, and nothing that computes."""

import heapq
from collections import deque
from dataclasses import dataclass

from qwen_tts.engine.sequence import Frame, Sequence, Status
from qwen_tts.errors import Overloaded
from qwen_tts.request import FinishReason


@dataclass(frozen=True)
class Plan:
    """One step: `newcomer` reads its prompt, `running` rows advance, then all of them get a frame."""

    newcomer: Sequence | None
    running: tuple[Sequence, ...]

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return self.running if self.newcomer is None else (*self.running, self.newcomer)


class Scheduler:
    """First come, first served over `slots`; at most one newcomer a step, so that running rows wait for one prompt.

    The lowest free slot is given first, which keeps the running rows packed at the start of the pools.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.slots = slots
        self.max_waiting = max_waiting
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._free = list(range(slots))

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def free_slots(self) -> int:
        return len(self._free)

    def add(self, sequence: Sequence) -> None:
        """Queue `sequence`. Raises Overloaded when `max_waiting` are queued beyond those a free slot awaits."""
        if len(self.waiting) - len(self._free) >= self.max_waiting:
            raise Overloaded(f"all {self.slots} slots are busy and {self.max_waiting} requests are waiting")
        self.waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End `sequence` now if it waits, at the end of the current step if it runs. Finished ones stay as they are."""
        if sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
            _finish(sequence, "cancelled")
        elif sequence.status is Status.RUNNING:
            sequence.cancel_requested = True

    def schedule(self) -> Plan:
        self._drop_cancelled()
        running = tuple(self.running)
        newcomer = None
        if self.waiting and self._free:
            newcomer = self.waiting[0]
            newcomer.slot = heapq.heappop(self._free)
            newcomer.status = Status.RUNNING
            self.running.append(newcomer)
            self.waiting.popleft()  # last: interrupted anywhere above, `abort` still finds it
        return Plan(newcomer=newcomer, running=running)

    def update(self, plan: Plan, frames: dict[int, Frame | None]) -> None:
        """Book what a step gave: per slot the new frame, or None where the talker ended the utterance.

        A slot that is not in `frames` was lost (its numbers overflowed); its sequence ends as cancelled.
        Other threads read a sequence without the engine's lock: a frame is appended before the reason is set, and the
        reason before the status says finished.
        """
        for sequence in plan.sequences:
            assert sequence.slot is not None
            if sequence.cancel_requested or sequence.slot not in frames:
                self._release(sequence, "cancelled")
            elif (frame := frames[sequence.slot]) is None:
                self._release(sequence, "stop")
            else:
                sequence.frames.append(frame)
                if len(sequence.frames) >= sequence.max_frames:
                    self._release(sequence, "length")
        self.check()

    def abort(self) -> None:
        """End everything as cancelled: a step has failed, or the engine is closing."""
        for sequence in (*self.running, *self.waiting):
            sequence.slot = None
            _finish(sequence, "cancelled")
        # Whatever was interrupted half-way, nobody holds a slot now.
        self.running.clear()
        self.waiting.clear()
        self._free = list(range(self.slots))

    def check(self) -> None:
        used = [sequence.slot for sequence in self.running]
        assert sorted([*used, *self._free], key=lambda slot: slot or 0) == list(range(self.slots)), (used, self._free)

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in self.running if s.cancel_requested]:
            self._release(sequence, "cancelled")

    def _release(self, sequence: Sequence, reason: FinishReason) -> None:
        assert sequence.slot is not None
        _finish(sequence, reason)
        self.running.remove(sequence)
        heapq.heappush(self._free, sequence.slot)
        sequence.slot = None


def _finish(sequence: Sequence, reason: FinishReason) -> None:
    sequence.finish_reason = reason
    sequence.status = Status.FINISHED
