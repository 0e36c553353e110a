"""Recordings to clone from, made of nothing: harmonics in the rhythm of syllables. The same on every machine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReferenceClip:
    """`seconds` of a voice at `pitch_hz`, sampled at `sample_rate_hz`."""

    seconds: float
    pitch_hz: float
    sample_rate_hz: int
    seed: int

    def samples(self) -> NDArray[np.float32]:
        time = np.arange(round(self.seconds * self.sample_rate_hz)) / self.sample_rate_hz
        rng = np.random.default_rng(self.seed)
        phase = 2 * np.pi * self.pitch_hz * (time + 0.02 * np.sin(2 * np.pi * 0.7 * time))
        weights = rng.uniform(0.2, 1.0, 18) / np.arange(1, 19)
        voiced = sum(weight * np.sin(n * phase) for n, weight in enumerate(weights, start=1))
        syllables = np.clip(np.sin(2 * np.pi * 3.1 * time + rng.uniform(0, 6)), 0.02, 1.0) ** 2
        breath = 0.02 * rng.standard_normal(len(time))
        samples: NDArray[np.float32] = (0.2 * syllables * (voiced + breath)).astype(np.float32)
        return samples


# Lengths that end inside a frame, a mel hop and a 25 Hz step; 12 s is longer than the encoder's attention window.
CLIPS: dict[str, ReferenceClip] = {
    "low": ReferenceClip(2.113, 110.0, 24000, 1),
    "high": ReferenceClip(3.0, 205.0, 24000, 2),
    "wide": ReferenceClip(1.37, 150.0, 44100, 3),
    "narrow": ReferenceClip(2.5, 130.0, 16000, 4),
    "long": ReferenceClip(12.345, 120.0, 24000, 5),
}
