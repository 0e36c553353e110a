"""Joining of pieces of speech, with pauses of the wanted length between them."""

import numpy as np

_SILENT = 160  # of 32768: below -46 dB, speech is not audible
_ONSET_S = 0.02  # kept before the first audible sample, because a sound begins softly


class Joiner:
    """Joins pieces of 16-bit PCM.

    The silence at the end of one piece and at the beginning of the next counts as part of the pause between them:

        one piece              the next piece
        ~~~sound~~~|_silent_|  |____own____|~~~sound~~~        wanted = pause - silent

        own < wanted:   ~~~|_silent_|___added___|____own____|~~~      added = wanted - own
        own > wanted:   ~~~|_silent_|_wanted_|~~~                     the first (own - wanted) samples are dropped

    At least the last 20 ms of `own` (the onset of the sound) are kept. Silence at the end of a piece is never held
    back, because it would then arrive too late.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._silent = 0  # samples of silence at the end of the output
        self._pause: int | None = None  # wanted samples of silence before the next sound; None within a piece
        self._held = b""  # the beginning of a piece, as long as it is silent

    def pause(self, pause_ms: int) -> None:
        """End the present piece: the next one begins after a pause of `pause_ms`."""
        assert pause_ms >= 0, f"a pause of {pause_ms} ms"
        self._pause = pause_ms * self._rate_hz // 1000
        self._held = b""

    def add(self, pcm: bytes) -> tuple[bytes, bytes]:
        """Accept the next samples of the piece; return the silence to insert, and then the samples to play.

        Both are empty as long as the piece has only been silent.
        """
        assert len(pcm) % 2 == 0, f"{len(pcm)} bytes end in the middle of a sample"
        silence = b""
        if self._pause is not None:
            self._held += pcm
            sounds = _sounds(self._held)
            if not len(sounds):
                return b"", b""
            own, wanted = int(sounds[0]), max(0, self._pause - self._silent)
            too_much = max(0, own - max(wanted, round(_ONSET_S * self._rate_hz)))
            added = max(0, wanted - own)
            assert own - too_much + added >= wanted, "the pause is shorter than wanted"
            silence, pcm = bytes(2 * added), self._held[2 * too_much :]
            self._pause, self._held = None, b""
        sounds = _sounds(pcm)
        self._silent = len(pcm) // 2 - 1 - int(sounds[-1]) if len(sounds) else self._silent + len(pcm) // 2
        assert self._silent >= 0, f"the output ends with {self._silent} samples of silence"
        return silence, pcm


def _sounds(pcm: bytes) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Return the indices of the audible samples."""
    return np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _SILENT)
