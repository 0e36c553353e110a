"""A simulated player of a stream: it starts when its start buffer is full, and never plays faster to catch up.

The service's own metrics (deployments/replicas/metrics.py) count in the same way, without a start buffer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Playback:
    """A played stream; all times are in seconds.

    silences: (moment, duration) of every time in which the player had nothing to play, between the end of a piece and
    the next arrival. _pieces: (position in the stream, moment it is played) of every piece.
    """

    silences: tuple[tuple[float, float], ...]
    _pieces: tuple[tuple[float, float], ...]

    def heard_s(self, position_s: float) -> float:
        """Return the moment at which the position `position_s` of the stream is played."""
        assert position_s >= 0, f"a stream has no position {position_s} s"
        begins, at = max((piece for piece in self._pieces if piece[0] <= position_s), key=lambda piece: piece[0])
        return at + position_s - begins


def play(pieces: Sequence[tuple[float, float]], start_buffer_s: float, end_s: float) -> Playback:
    """Play a stream of at least one piece.

    pieces: (moment of arrival, seconds of audio). end_s: the end of the stream; a player whose start buffer never
    filled starts then.
    """
    assert pieces, "a stream without audio is never played"
    in_hand, clock = 0.0, end_s
    for arrival, audio in pieces:
        in_hand += audio
        if in_hand >= start_buffer_s:
            clock = arrival
            break
    position, started = 0.0, clock
    silences, played = list[tuple[float, float]](), list[tuple[float, float]]()
    for arrival, audio in pieces:
        if arrival > clock:
            silences.append((clock, arrival - clock))
            clock = arrival
        played.append((position, clock))
        position += audio
        clock += audio
    silence = sum(duration for _, duration in silences)
    assert math.isclose(clock - started, position + silence, abs_tol=1e-6), "time passed without audio or silence"
    return Playback(tuple(silences), tuple(played))
