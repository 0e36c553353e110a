"""How many streams of a model may be made at the same time, learned from the pace of these streams.

The pace of a stream is the audio that is made in a time, divided by this time. At a pace of 1 the listener's audio in
hand neither grows nor shrinks. The pace of many chunks together is a steadier signal than the audio that one listener
has in hand: a stream begins with one or two frames in hand, so every stream looks endangered at its start.
"""

import math
from dataclasses import dataclass

# Streams should be made at this pace. The rest of the time is for the prompts of newcomers and for other work of the
# machine.
_GOOD_PACE = 1.5
# Below this pace the limit shrinks.
_LEAST_PACE = 1.2
_FIRST_LIMIT = 4.0
# No round multiplies the limit by more: at first, while the machine's size is not known, and later.
_FAST, _STEADY = 2.0, 1.1
# A round is judged when each stream in use has given this much evidence on average, in seconds of audio or of time.
_EVIDENCE_S = 1.0
_EARLY_EVIDENCE_S = 0.5  # for fast growth
# The time between two chunks counts up to this. Then a stall of the machine is one bad round, however long it lasts.
LONGEST_GAP_S = 1.0
# One round may be a hiccup of the machine, so no round takes more than half of the limit.
_MOST_SHRINKING = 0.5
# For listeners who ran out of audio, or who waited long for the first audio, although the pace was good; and for a
# replica whose queue was full.
_CAUTION = 0.9
# The share of the chunks of a round that may come too late. One late chunk is never enough.
_LATE = 0.05
# After an attempt with one stream more that failed, the next one waits for twice as many rounds, up to this number.
_LONGEST_PAUSE = 64
# The rounds before an attempt at a pace that is neither good nor bad.
_REST = 16
# The weight of the newest round in the average pace of a stream that is alone, and the highest pace in it.
_ALONE_WEIGHT, _ALONE_MOST = 0.3, 1.6
_SHORTEST_S = 1e-6


@dataclass
class _Round:
    """What was observed in one round."""

    audio_s: float = 0.0
    stream_s: float = 0.0  # the time in which the audio was made, summed over the streams
    chunks: int = 0
    in_use: int = 0  # the streams in use, summed over the chunks
    making: int = 0  # those of them that had audio already, summed over the chunks
    most: int = 0  # streams in use
    late: int = 0  # chunks that came when the listener had no audio, and first chunks that came late
    full: bool = False  # a request found no place, or took the last one
    refused: bool = False  # by the queue of a replica

    @property
    def pace(self) -> float:
        return self.audio_s / max(self.stream_s, _SHORTEST_S)


class StreamLimit:
    """The limit of one model. It is `math.inf` on a machine that cannot make even one stream in real time.

    There a limit would not help any listener. It would only cost throughput, because streams share batches.
    """

    def __init__(self) -> None:
        self.limit = _FIRST_LIMIT
        self.growing_fast = True
        self._kept_up = False  # a latch: a machine that kept up once is slow later because of other work
        self._alone_pace = _ALONE_MOST  # an average
        self._round = _Round()
        self._attempt = False  # the limit has grown, and no round has shown the result
        self._pause = 1  # full rounds from one attempt to the next
        self._rested = 0  # full rounds since the last change

    def full(self) -> None:
        """Note that the limit is in use. Otherwise a good pace says nothing about one stream more."""
        self._round.full = True

    def late(self) -> None:
        """Note a listener who ran out of audio, or who waited long for the first audio."""
        self._round.late += 1

    def refused(self) -> None:
        """Note that the queue of a replica was full."""
        if not self._round.refused:
            self._shrink(_CAUTION)
        self._round.refused = True

    def observe(self, audio_s: float, gap_s: float, in_use: int, making: int) -> None:
        """Count a chunk of `audio_s`, which comes `gap_s` after the one before it in its stream.

        Of the streams in use, `making` have audio already. The others may wait at a replica.
        """
        assert audio_s > 0, "a chunk without audio says nothing about the pace"
        assert 0 <= making <= in_use, f"{making} of {in_use} streams have audio"
        round_ = self._round
        round_.audio_s += audio_s
        round_.stream_s += min(gap_s, LONGEST_GAP_S)
        round_.chunks += 1
        round_.in_use += in_use
        round_.making += making
        round_.most = max(round_.most, in_use)
        early = self.growing_fast and round_.full and round_.pace >= _GOOD_PACE
        evidence_s = _EARLY_EVIDENCE_S if early else _EVIDENCE_S
        if max(round_.audio_s, round_.stream_s) >= evidence_s * max(1, in_use):
            self._round = _Round()
            self._judge(round_)
        assert self.limit >= 1, f"a limit of {self.limit}"

    def _judge(self, done: _Round) -> None:
        pace = done.pace
        if done.most <= 1 or pace > self._alone_pace:  # a stream that is alone is as fast as one of many at least
            self._alone_pace += _ALONE_WEIGHT * (min(pace, _ALONE_MOST) - self._alone_pace)
        self._kept_up = self._kept_up or min(pace, self._alone_pace) >= _LEAST_PACE
        if math.isinf(self.limit):
            if self._kept_up:
                self.limit = max(_FIRST_LIMIT, done.most)
        elif self._alone_pace < 1 and not self._kept_up:
            self.limit = math.inf
        elif pace < _LEAST_PACE:
            streams = done.in_use / done.chunks * pace / _GOOD_PACE
            self._shrink(max(_MOST_SHRINKING, streams / self.limit))
        elif done.late > max(1.0, _LATE * done.chunks):
            self._shrink(_CAUTION)
        elif done.full:
            self._grow(pace, done.making / done.chunks)

    def _shrink(self, factor: float) -> None:
        self.growing_fast = False
        if self._attempt:
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        self._attempt, self._rested = False, 0
        self.limit = max(1.0, self.limit * min(1.0, factor))

    def _grow(self, pace: float, making: float) -> None:
        """Judge a full round that was good. `making` streams were made at this pace.

        If all streams share the machine, `making * pace / p` of them would have the pace `p`. So this many are certain.
        One stream more is an attempt: maybe it shares the batches of the others and costs them nothing.
        """
        self.growing_fast = self.growing_fast and pace >= _GOOD_PACE
        if self._attempt:
            self._attempt, self._pause = False, 1
        self._rested += 1
        most = (_FAST if self.growing_fast else _STEADY) * self.limit
        certain = min(most, making * pace / (1.0 if self.growing_fast else _GOOD_PACE))
        good = making * pace >= _GOOD_PACE * self.limit
        waiting = pace >= _GOOD_PACE and not good  # some streams wait at a replica
        pause = self._pause if good else _REST
        if certain >= self.limit + 1:
            self._change(certain)
        elif self._rested >= pause and not waiting:
            self._change(self.limit + 1)
            self._attempt = True
        elif self.growing_fast:
            self.growing_fast = good

    def _change(self, limit: float) -> None:
        self.limit = limit
        self._rested = 0
