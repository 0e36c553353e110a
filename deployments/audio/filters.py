"""Streaming filters of 16-bit samples [S]: another tempo at the same pitch, another sample rate.

The output does not depend on how the input is cut into pieces.
"""

import math
from typing import Protocol

import av
import numpy as np
import soxr
from av.filter import Graph
from numpy.typing import NDArray

Samples16 = NDArray[np.int16]


class AudioFilter(Protocol):
    """A filter whose input arrives in pieces."""

    def change(self, samples: Samples16) -> Samples16:
        """Accept the next samples [S]; return the output that is certain so far, perhaps none."""
        ...

    def finish(self) -> Samples16:
        """Return the rest of the output. This is the last call, and there is only one."""
        ...


class Tempo:
    """Makes speech `speed` times as fast at the same pitch, with FFmpeg's WSOLA (`atempo`)."""

    def __init__(self, sample_rate_hz: int, speed: float) -> None:
        self._rate_hz = sample_rate_hz
        self._graph = Graph()
        self._source = self._graph.add_abuffer(sample_rate=sample_rate_hz, format="s16", layout="mono")
        self._sink = self._graph.add("abuffersink")
        last = self._source
        for factor in _tempo_steps(speed):
            step = self._graph.add("atempo", str(factor))
            last.link_to(step)
            last = step
        last.link_to(self._sink)
        self._graph.configure()

    def change(self, samples: Samples16) -> Samples16:
        if len(samples):  # FFmpeg refuses an empty frame
            self._source.push(audio_frame(samples, self._rate_hz))
        return self._drained()

    def finish(self) -> Samples16:
        self._source.push(None)
        return self._drained()

    def _drained(self) -> Samples16:
        pieces: list[Samples16] = [np.zeros(0, np.int16)]
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):  # the filter needs more input, or has ended
                return np.concatenate(pieces)
            assert isinstance(frame, av.AudioFrame), "a filter of audio returned a frame of video"
            pieces.append(frame.to_ndarray().reshape(-1).astype(np.int16, copy=False))


def _tempo_steps(speed: float) -> list[float]:
    """Return factors of one `atempo` each, whose product is `speed`.

    A factor is at least 0.5, which is atempo's minimum. It is at most 2, because above 2 atempo drops samples without
    blending.

        speed     0.25             0.5        1        2            4
                   |----------------|--------|--------|------------|
        factors     0.5, speed / 0.5      speed        2, speed / 2
    """
    assert speed > 0, f"no factors make the speed {speed}"
    steps, rest = [], speed
    for limit in (0.5, 2.0):
        while (rest < limit) if limit < 1 else (rest > limit):
            steps.append(limit)
            rest /= limit
    assert 0.5 <= rest <= 2.0, f"atempo does not blend at the factor {rest}"
    assert math.isclose(rest * math.prod(steps), speed), f"{steps} and {rest} do not make {speed}"
    return [*steps, rest]


class Resampler:
    """Changes the sample rate, with soxr in high quality."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")

    def change(self, samples: Samples16) -> Samples16:
        return self._resampled(samples, last=False)

    def finish(self) -> Samples16:
        return self._resampled(np.zeros(0, np.int16), last=True)

    def _resampled(self, samples: Samples16, *, last: bool) -> Samples16:
        # In float: soxr dithers 16-bit output, and the dither depends on how the input is cut into pieces.
        exact = self._stream.resample_chunk(samples.astype(np.float32), last)
        rounded: Samples16 = np.clip(np.rint(exact), -32768, 32767).astype(np.int16)
        return rounded


def audio_frame(samples: Samples16, sample_rate_hz: int) -> av.AudioFrame:
    """Return samples [S] as one mono frame of FFmpeg."""
    assert samples.ndim == 1, f"mono samples have one axis, not {samples.ndim}"
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = sample_rate_hz
    return frame
