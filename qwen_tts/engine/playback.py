"""What a listener hears of one stream who starts to play with the first audio: does it arrive in time?"""

from dataclasses import dataclass

from qwen_tts.engine.pace import FRAME_S

# A first word may come later by this much; silence in the middle of one may not.
_FIRST_S = 2 * FRAME_S


@dataclass
class Playback:
    """Times in seconds, on the clock that `now` is read from."""

    requested: float
    ahead: float = 0.0  # other audio in the listener's hands, to be heard before this
    first_sent: float | None = None
    sent: float = 0.0  # audio
    underruns: int = 0
    silence: float = 0.0  # heard between one chunk's end and the next one's coming
    _last: float = 0.0

    def headroom(self, now: float) -> float:
        """Audio in the listener's hands that is not played yet; below 0, for how long there has been none."""
        return self.ends - now

    @property
    def ends(self) -> float:
        """When the last of it is played; while nothing has been sent, when the first is wanted."""
        began = self.requested + _FIRST_S if self.first_sent is None else self.first_sent
        return began + self.ahead + self.silence + self.sent

    def send(self, audio: float, now: float) -> float | None:
        """A chunk of `audio` leaves. Returns the time since the one before (None: it is the first)."""
        gap = None
        if self.first_sent is None:
            self.first_sent = now
        else:
            gap = now - self._last
            missing = -self.headroom(now)
            if missing > 0:
                self.underruns += 1
                self.silence += missing
        self.sent += audio
        self._last = now
        return gap
