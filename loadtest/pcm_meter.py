"""The audio of one answer as it arrives: when, how much, and since when there is something to hear."""

import numpy as np

RATE_HZ = 24000
_WINDOW_S = 0.02


class PcmMeter:
    """Of 16-bit mono PCM at RATE_HZ, or of a WAV file of it at any rate.

    Audible is the first 20 ms whose root mean square is above `audible_rms` (1 is full scale).
    """

    def __init__(self, audible_rms: float) -> None:
        self.pieces: list[tuple[float, float]] = []  # (moment of arrival, seconds of audio)
        self.sizes: list[tuple[float, int]] = []  # (moment of arrival, bytes), the file's header included
        self.audible: tuple[float, float] | None = None  # (moment it arrived, position in the stream, s)
        self.rate_hz = RATE_HZ
        self._least = (audible_rms * 32768) ** 2
        self._header: bytes | None = b""  # what came of it; None after it
        self._pcm = bytearray()
        self._heard_bytes = 0  # of windows that are judged

    @property
    def audio_s(self) -> float:
        return len(self._pcm) / 2 / self.rate_hz

    @property
    def pcm(self) -> bytes:
        return bytes(self._pcm)

    def receive(self, data: bytes, now: float) -> None:
        """`data` arrived at the moment `now`."""
        self.sizes.append((now, len(data)))
        before = self.audio_s
        self._pcm += self._without_header(data)
        if self.audio_s > before:
            self.pieces.append((now, self.audio_s - before))
        window = 2 * round(_WINDOW_S * self.rate_hz)
        while self.audible is None and self._heard_bytes + window <= len(self._pcm):
            samples = np.frombuffer(bytes(self._pcm[self._heard_bytes : self._heard_bytes + window]), "<i2")
            if np.mean(samples.astype(np.float64) ** 2) > self._least:
                self.audible = now, self._heard_bytes / 2 / self.rate_hz
            self._heard_bytes += window

    def _without_header(self, data: bytes) -> bytes:
        """The samples in `data`. A WAV header may come in pieces."""
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
