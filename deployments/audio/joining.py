"""Pieces of speech joined with pauses of a length that fits."""

import numpy as np

_SILENT = 160  # of 32768: below -46 dB nobody hears speech
_ONSET_S = 0.02  # before the first sound that is heard, where it begins softly


class Joiner:
    """What is heard of one piece after the other, of 16-bit PCM.

    A pause counts the silence that the pieces themselves end and begin with. What is missing of it is put in, what the
    next piece begins with beyond it is left out; nothing is held back at the end of a piece, where it would come late.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._silent = 0  # samples of silence that were heard last
        self._pause: int | None = None  # samples that are wanted before the next sound
        self._held = b""

    def pause(self, pause_ms: int) -> None:
        """A piece has ended, and another begins."""
        self._pause = pause_ms * self._rate_hz // 1000
        self._held = b""

    def add(self, pcm: bytes) -> tuple[bytes, bytes]:
        """The pause before them, and what is heard of the next samples of the piece: nothing while it only begins."""
        silence = b""
        if self._pause is not None:
            self._held += pcm
            sounds = _sounds(self._held)
            if not len(sounds):
                return b"", b""
            own, wanted = int(sounds[0]), max(0, self._pause - self._silent)
            too_much = max(0, own - max(wanted, round(_ONSET_S * self._rate_hz)))
            silence, pcm = bytes(2 * max(0, wanted - own)), self._held[2 * too_much :]
            self._pause, self._held = None, b""
        sounds = _sounds(pcm)
        self._silent = len(pcm) // 2 - 1 - int(sounds[-1]) if len(sounds) else self._silent + len(pcm) // 2
        return silence, pcm


def _sounds(pcm: bytes) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Indices of the samples that are heard."""
    return np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _SILENT)
