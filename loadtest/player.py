"""A listener who plays a stream as it arrives: from the moment that so much audio is in hand, and without catching up.

What the service counts of itself (metrics.py there) is the same without a start buffer.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Playback:
    """Seconds. `silence_s` is what was heard of nothing between one piece's end and the next one's coming; `_pieces`
    are (position in the stream, moment it is played) of every piece."""

    underruns: int
    silence_s: float
    _pieces: tuple[tuple[float, float], ...]

    def heard_s(self, position_s: float) -> float:
        """The moment at which what lies at `position_s` of the stream is played."""
        begins, at = max((piece for piece in self._pieces if piece[0] <= position_s), key=lambda piece: piece[0])
        return at + position_s - begins


def play(pieces: Sequence[tuple[float, float]], start_buffer_s: float, end_s: float) -> Playback:
    """`pieces` are (moment of arrival, seconds of audio), at least one; `end_s` is when the stream had ended, which
    starts a player whose buffer never filled."""
    in_hand, clock = 0.0, end_s
    for arrival, audio in pieces:
        in_hand += audio
        if in_hand >= start_buffer_s:
            clock = arrival
            break
    position = silence = 0.0
    underruns = 0
    played = []
    for arrival, audio in pieces:
        if arrival > clock:
            underruns += 1
            silence += arrival - clock
            clock = arrival
        played.append((position, clock))
        position += audio
        clock += audio
    return Playback(underruns, silence, tuple(played))
