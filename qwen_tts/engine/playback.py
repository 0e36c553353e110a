"""The audio that a listener of one stream has in hand: received, but not played yet.

The listener starts to play with the first audio and plays without a break while there is any. Where the next audio
comes too late, the listener hears silence until it comes:

    begins                                now      ends
    |-- played --|-- silence --|-- played --|-- headroom --|

`begins` is the time of the first audio, or later if the listener has other audio to hear first: `ahead` seconds from
the request on. So `ends` is begins + sent + silence, and the headroom at `now` is what lies between the two.
"""

from dataclasses import dataclass

from qwen_tts.engine.pace import FRAME_S

# The first audio may be this late before it counts as missing; silence within a stream may not.
_FIRST_S = 2 * FRAME_S


@dataclass
class Playback:
    """What one listener has received and heard. All times are seconds on the clock that `now` is read from."""

    requested: float
    ahead: float = 0.0  # other audio that the listener has in hand and hears first
    continues: bool = False  # the listener has heard the beginning of the same speech
    first_sent: float | None = None
    sent: float = 0.0  # audio
    underruns: int = 0
    silence: float = 0.0  # between the end of one chunk and the arrival of the next
    _last: float = 0.0

    def headroom(self, now: float) -> float:
        """Return the audio in hand. A negative value is the time for which the listener has had none."""
        return self.ends - now

    @property
    def ends(self) -> float:
        """The time at which the last of the audio is played. Before anything is sent: when the first is wanted."""
        if self.first_sent is None:
            return self.requested + _FIRST_S + self.ahead
        # The other audio plays from the request on, so the time until the first audio is sent uses it up.
        return max(self.first_sent, self.requested + self.ahead) + self.silence + self.sent

    def send(self, audio: float, now: float) -> float | None:
        """Count a chunk of `audio` that is sent now. Return the time since the chunk before, None for the first."""
        assert audio >= 0, f"a chunk of {audio} s"
        gap = None
        if self.first_sent is None:
            self.first_sent = now
        else:
            gap = now - self._last
            assert gap >= 0, f"sent at {now}, before the chunk that was sent at {self._last}"
            missing = -self.headroom(now)
            if missing > 0:
                self.underruns += 1
                self.silence += missing
        self.sent += audio
        self._last = now
        return gap
