"""Recordings to upload, in the containers that people send."""

import io

import av
import numpy as np
from numpy.typing import NDArray

from tests.parity.reference_clips import CLIPS

# The files people send: container, codec, rate in Hz, channels.
FILES = {
    "wav 8 kHz": ("wav", "pcm_s16le", 8000, 1),
    "wav 16 kHz": ("wav", "pcm_s16le", 16000, 1),
    "wav 48 kHz stereo": ("wav", "pcm_s16le", 48000, 2),
    "wav 24 bit": ("wav", "pcm_s24le", 44100, 2),
    "wav 8 bit": ("wav", "pcm_u8", 16000, 1),
    "wav float": ("wav", "pcm_f32le", 48000, 1),
    "aiff": ("aiff", "pcm_s16be", 22050, 1),
    "mp3": ("mp3", "libmp3lame", 44100, 2),
    "mp3 16 kHz": ("mp3", "libmp3lame", 16000, 1),
    "flac": ("flac", "flac", 16000, 1),
    "ogg opus": ("ogg", "libopus", 48000, 1),
    "ogg vorbis": ("ogg", "vorbis", 44100, 2),
    "m4a": ("mp4", "aac", 44100, 1),
    "webm": ("webm", "libopus", 48000, 2),
    "matroska": ("matroska", "pcm_s16le", 48000, 1),
}


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
