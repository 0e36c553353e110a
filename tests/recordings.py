"""Recordings to upload, in the containers that people send."""

import io

import av
import numpy as np
from numpy.typing import NDArray

from tests.parity.reference_clips import CLIPS


def recording(name: str = "high", seconds: float | None = None) -> tuple[NDArray[np.float32], int]:
    """Samples [S] and sample rate in Hz of a made-up voice."""
    clip = CLIPS[name]
    samples = clip.samples()
    return samples if seconds is None else samples[: round(seconds * clip.sample_rate_hz)], clip.sample_rate_hz


def encode(
    samples: NDArray[np.float32], rate_hz: int, container: str = "wav", codec: str = "pcm_s16le", channels: int = 1
) -> bytes:
    """A file of `samples` [S] on every channel."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        layout = "mono" if channels == 1 else "stereo"
        stream = file.add_stream(codec, rate=rate_hz, layout=layout, options={"strict": "experimental"})  # for vorbis
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.tile(samples, (channels, 1)).astype(np.float32)), "fltp", layout
        )
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.format, layout=stream.layout, rate=rate_hz, frame_size=stream.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def wav(name: str = "high", seconds: float | None = None) -> bytes:
    return encode(*recording(name, seconds))
