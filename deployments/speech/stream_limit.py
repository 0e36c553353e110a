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
# Below this pace the limit shrinks. Between the two it stays, so a steady load has a steady limit.
_LEAST_PACE = 1.2
_FIRST_LIMIT = 4.0
_FAST = 1.5  # the factor from round to round while the machine's size is not known
# A round is judged when each stream in use has given this much evidence on average, in seconds of audio or of time.
_EVIDENCE_S = 1.0
# One round may be a hiccup of the machine, so no round takes more than half of the limit.
_MOST_SHRINKING = 0.5
# For a listener who ran out of audio, or who waited long for the first audio, although the pace was good.
_CAUTION = 0.9
_SHORTEST_S = 1e-6


@dataclass
class _Round:
    """What was observed since `began_s`."""

    began_s: float
    audio_s: float = 0.0
    stream_s: float = 0.0  # the time in which the audio was made, summed over the streams
    full: bool = False  # a request found no place, or took the last one
    strained: bool = False  # a listener ran out of audio, or waited long for the first audio


class StreamLimit:
    """The limit of one model. It is `math.inf` on a machine that cannot make even one stream in real time.

    There a limit would not help any listener. It would only cost throughput, because streams share batches.
    """

    def __init__(self, now: float) -> None:
        self.limit = _FIRST_LIMIT
        self.growing_fast = True
        self._kept_up = False  # a latch: a machine that kept up once is slow later because of other work
        self._round = _Round(now)

    def full(self) -> None:
        """Note that the limit is in use. Otherwise a good pace says nothing about one stream more."""
        self._round.full = True

    def strain(self) -> None:
        """Note a listener who ran out of audio, or who waited long for the first audio."""
        self._round.strained = True

    def refused(self, held: int, now: float) -> None:
        """Note that a replica refused the newest of `held` streams."""
        assert held > 0, "a stream without a place was refused"
        self.growing_fast = False
        self.limit = min(self.limit, max(1.0, held - 1.0))
        self._round = _Round(now)

    def observe(self, audio_s: float, gap_s: float, in_use: int, now: float) -> None:
        """Count a chunk of `audio_s` that comes now, `gap_s` after the one before it in its stream."""
        assert audio_s > 0, "a chunk without audio says nothing about the pace"
        round_ = self._round
        round_.audio_s += audio_s
        round_.stream_s += gap_s
        if max(round_.audio_s, round_.stream_s) >= _EVIDENCE_S * max(1, in_use):
            self._judge(round_, in_use, max(now - round_.began_s, _SHORTEST_S))
            self._round = _Round(now)
        assert self.limit >= 1, f"a limit of {self.limit}"

    def _judge(self, done: _Round, in_use: int, took_s: float) -> None:
        pace = done.audio_s / max(done.stream_s, _SHORTEST_S)
        self._kept_up = self._kept_up or pace >= _LEAST_PACE
        if math.isinf(self.limit):
            if self._kept_up:
                self.limit = max(_FIRST_LIMIT, in_use)
        elif pace < 1 and in_use <= 1 and not self._kept_up:
            self.limit = math.inf
        elif pace < _LEAST_PACE:
            self._shrink(max(_MOST_SHRINKING, in_use * pace / _GOOD_PACE / self.limit))
        elif done.strained:
            self._shrink(_CAUTION)
        elif done.full:
            self._grow(done.audio_s / took_s / _GOOD_PACE)

    def _shrink(self, factor: float) -> None:
        self.growing_fast = False
        self.limit = max(1.0, self.limit * min(1.0, factor))

    def _grow(self, streams: float) -> None:
        """Grow towards the number of `streams` that could be made at the good pace from all audio of the round."""
        if self.growing_fast:
            most = _FAST * self.limit
            self.growing_fast = streams >= most
            self.limit = min(most, max(self.limit, streams))
        elif streams >= self.limit + 1:
            self.limit += 1
