"""The meter of one answer's audio: when each piece arrives, how long it is, and where audible sound begins."""

import numpy as np

RATE_HZ = 24000
_WINDOW_S = 0.02


class PcmMeter:
    """Measures 16-bit mono PCM at RATE_HZ, or a WAV file of 16-bit mono PCM at any rate.

    The sound is audible from the first window of 20 ms whose root mean square is above `audible_rms` (1 is full scale).
    """

    def __init__(self, audible_rms: float) -> None:
        self.pieces: list[tuple[float, float]] = []  # (moment of arrival, seconds of audio)
        self.sizes: list[tuple[float, int]] = []  # (moment of arrival, bytes), with the header of a file
        self.audible: tuple[float, float] | None = None  # (moment it arrived, position in the stream, s)
        self.rate_hz = RATE_HZ
        self._least = (audible_rms * 32768) ** 2
        self._header: bytes | None = b""  # the received part of the header; None when the header has ended
        self._pcm = bytearray()
        self._judged_bytes = 0  # of complete windows that were compared with the limit

    @property
    def audio_s(self) -> float:
        return len(self._pcm) / 2 / self.rate_hz

    @property
    def pcm(self) -> bytes:
        return bytes(self._pcm)

    def receive(self, data: bytes, now: float) -> None:
        """Count `data`, which arrived at the moment `now`."""
        assert not self.sizes or now >= self.sizes[-1][0], f"data of {now} s arrived after data of {self.sizes[-1][0]}"
        self.sizes.append((now, len(data)))
        before = self.audio_s
        self._pcm += self._without_header(data)
        if self.audio_s > before:
            self.pieces.append((now, self.audio_s - before))
        window = 2 * round(_WINDOW_S * self.rate_hz)
        assert self._judged_bytes <= len(self._pcm), "windows were judged whose samples have not arrived"
        while self.audible is None and self._judged_bytes + window <= len(self._pcm):
            samples = np.frombuffer(bytes(self._pcm[self._judged_bytes : self._judged_bytes + window]), "<i2")
            if np.mean(samples.astype(np.float64) ** 2) > self._least:
                self.audible = now, self._judged_bytes / 2 / self.rate_hz
            self._judged_bytes += window

    def _without_header(self, data: bytes) -> bytes:
        """Return the samples in `data`. A WAV header may arrive in several pieces."""
        if self._header is None:
            return data
        self._header += data
        if not self._header.startswith(b"RIFF"[: len(self._header)]):  # bare PCM
            data, self._header = self._header, None
            return data
        at = self._header.find(b"data")
        if at < 0 or len(self._header) < at + 8:
            return b""
        self.rate_hz = int.from_bytes(self._header[24:28], "little") or RATE_HZ
        data, self._header = self._header[at + 8 :], None
        return data
