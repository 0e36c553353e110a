"""Synthesise speech with Debian's flite: three English voices with adjustable pitch, vocal tract and rate.

flite <http://cmuflite.org>, package `flite` 2.2. Its voices rms, slt and awb were built from the CMU Arctic recordings.
qwen_tts/checkpoints/TERMS.md has the licences.
"""

import subprocess
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from qwen_tts.train.clips import RATE_HZ, SAMPLES_PER_FRAME, SOUNDS_PER_FRAME

_FLITE_HZ = 16000
_LEVEL = 0.08  # RMS of the speech
_SILENT = 0.008  # a lower envelope is silence
_LEAD_S, _TAIL_S = 0.06, 0.12
_FINEST = 100  # the factors of a voice are hundredths, so resampling has small ratios

Base = Literal["rms", "slt", "awb"]


@dataclass(frozen=True)
class FliteVoice:
    """`pitch` multiplies the pitch (rms ignores it). `size` divides the length of the vocal tract, which raises pitch
    and formants together. `slowness` multiplies durations. All are rounded to hundredths."""

    base: Base
    pitch: float = 1.0
    size: float = 1.0
    slowness: float = 1.0

    @property
    def identity(self) -> str:
        """The name of the voice, without its rate."""
        return f"{self.base}-{self.pitch:.2f}-{self.size:.2f}"


@dataclass(frozen=True, eq=False)
class Speech:
    """24 kHz samples [F * 1920]: 60 ms of silence, speech, 120 ms of silence, padded to whole frames. `sounds` are the
    phones in the middles of SOUNDS_PER_FRAME equal parts of every frame."""

    samples: NDArray[np.int16]
    sounds: list[str]


def speak(text: str, voice: FliteVoice) -> Speech:
    """Synthesise `text`. Raises ValueError when flite speaks nothing."""
    size = round(voice.size * _FINEST)
    stretch = voice.slowness * size / _FINEST  # compensates for faster playback, which raises the formants
    command = ["flite", "-voice", voice.base, "--setf", f"duration_stretch={stretch:.4f}"]
    if voice.pitch != 1.0 and voice.base != "rms":
        command += ["--setf", f"f0_shift={voice.pitch:.4f}"]
    with NamedTemporaryFile(suffix=".wav") as wav:
        run = subprocess.run(
            [*command, "-psdur", "-t", text, "-o", wav.name], capture_output=True, text=True, check=True
        )
        samples, rate_hz = soundfile.read(wav.name, dtype="float32")
    assert rate_hz == _FLITE_HZ, rate_hz
    samples = resample_poly(samples, RATE_HZ // 8000 * _FINEST, _FLITE_HZ // 8000 * size)
    pcm, start = _to_frames(samples)
    phones = [phone.rsplit(":", 1) for phone in run.stdout.split()]
    ends_s = np.array([float(end_s) for _, end_s in phones]) * _FINEST / size
    middles = (np.arange(len(pcm) // SAMPLES_PER_FRAME * SOUNDS_PER_FRAME) + 0.5) * SAMPLES_PER_FRAME / SOUNDS_PER_FRAME
    heard = np.searchsorted(ends_s, (start + middles) / RATE_HZ).clip(max=len(phones) - 1)
    return Speech(pcm, [phones[index][0] for index in heard])


def _to_frames(samples: NDArray[np.float32]) -> tuple[NDArray[np.int16], int]:
    """Return whole frames of `samples` and the index of their first sample (negative in the padding)."""
    window = RATE_HZ // 100
    envelope = np.sqrt(np.convolve(samples**2, np.full(window, 1 / window), mode="same"))
    loud = np.flatnonzero(envelope > _SILENT)
    if not len(loud):
        raise ValueError("flite spoke nothing")
    first, last = loud[0], loud[-1]
    level = np.sqrt(np.mean(samples[loud] ** 2))
    lead, tail = round(_LEAD_S * RATE_HZ), round(_TAIL_S * RATE_HZ)
    padded = np.pad(samples, (lead, tail + SAMPLES_PER_FRAME))[first : last + 1 + lead + tail]
    padded = np.pad(padded, (0, -len(padded) % SAMPLES_PER_FRAME)) * (_LEVEL / level)
    pcm: NDArray[np.int16] = np.round(np.clip(padded, -1, 1) * 32767).astype(np.int16)
    return pcm, int(first) - lead
