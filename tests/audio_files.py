"""Audio files read by decoders that did not write them: the ffmpeg program, and libsndfile."""

import io
import subprocess
import wave
from dataclasses import dataclass

import imageio_ffmpeg
import numpy as np
import soundfile
from numpy.typing import NDArray

from qwen_tts.audio import Clip

# What ffmpeg must be told of formats that do not say it themselves: its name of them.
HEADERLESS = {"pcm": "s16le", "mulaw": "mulaw", "alaw": "alaw"}


@dataclass(frozen=True, eq=False)
class Decoded:
    """samples [S], 16 bit."""

    samples: NDArray[np.int16]
    sample_rate_hz: int
    channels: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    @property
    def clip(self) -> Clip:
        return Clip((self.samples / 32768).astype(np.float32), self.sample_rate_hz)


def decoded(file: bytes, audio_format: str, sample_rate_hz: int) -> Decoded:
    """`file` by ffmpeg, which is told the rate only of what has no header. Raises ValueError when it complains."""
    raw = ["-f", HEADERLESS[audio_format], "-ar", str(sample_rate_hz)] if audio_format in HEADERLESS else []
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, "-i", "pipe:0"]
    run = subprocess.run(
        [*program, "-bitexact", "-c:a", "pcm_s16le", "-f", "wav", "-"], input=file, capture_output=True
    )
    if run.returncode or run.stderr:
        raise ValueError(f"ffmpeg: {run.stderr.decode()}")
    with wave.open(io.BytesIO(run.stdout)) as found:
        samples = np.frombuffer(found.readframes(found.getnframes()), "<i2")
        return Decoded(samples, found.getframerate(), found.getnchannels())


def read_by_libsndfile(file: bytes) -> Decoded:
    samples, rate_hz = soundfile.read(io.BytesIO(file), dtype="int16", always_2d=True)
    return Decoded(samples[:, 0], rate_hz, samples.shape[1])


def same_samples(one: bytes, other: bytes) -> bool:
    """Whether two pieces of 16-bit PCM are the same, but for rounding: a decoder adds up differently with the number of
    frames at once, which follows what the listener has in hand."""
    if len(one) != len(other):
        return False
    difference = np.frombuffer(one, np.int16).astype(np.int32) - np.frombuffer(other, np.int16)
    return bool(np.abs(difference).max(initial=0) <= 1)
