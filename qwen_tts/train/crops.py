"""Random crops of a data set's audio, for the stages of codec training."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_tts.train.clips import SAMPLES_PER_FRAME, ClipSet
from qwen_tts.train.training import share

_HELD_OUT_CLIPS = 48
_GAIN_DB = (-4.0, 3.0)


@dataclass(frozen=True)
class Crops:
    """The data of a step: `clips` crops of `frames` frames."""

    clips: int
    frames: int


class CropReader:
    """Draws random crops of a data set; every frame is equally likely. The last clips are held out."""

    def __init__(self, clips: ClipSet) -> None:
        self.clips = clips
        self.training = len(clips) - _HELD_OUT_CLIPS
        self._frames = int(clips.ends[self.training - 1])

    def draw(
        self, crops: Crops, step: int, *, seed: int, gain_db: tuple[float, float] = _GAIN_DB
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """Draw samples [B, frames * 1920] at random gains, and the (clip, first frame) of each; the end may be silence.

        Processes that train together share the crops.
        """
        number_here, processes = share()
        assert crops.clips % processes == 0, f"{crops.clips} crops cannot be shared evenly by {processes} processes"
        rng = np.random.default_rng([seed, step])
        rows, places = [], []
        for number in range(crops.clips):
            place = int(rng.integers(self._frames))
            index = int(np.searchsorted(self.clips.ends, place, side="right"))
            frames = self.clips.clips[index].frames
            first = max(0, min(place - int(self.clips.ends[index]) + frames, frames - crops.frames))
            gain = 10 ** (rng.uniform(*gain_db) / 20)
            if number % processes != number_here:
                continue
            rows.append(self._crop(index, first, crops.frames) * np.float32(gain))
            places.append((index, first))
        return torch.from_numpy(np.stack(rows)), places

    def held_out(self, frames: int) -> Tensor:
        """Return the first `frames` frames of the held-out clips: [B, frames * 1920]."""
        indices = range(self.training, len(self.clips))
        return torch.from_numpy(np.stack([self._crop(index, 0, frames) for index in indices]))

    def codes(self, places: list[tuple[int, int]], frames: int) -> Tensor:
        """Return codes [B, frames, G] of crops at (clip, first frame); past a clip's end its last frame repeats."""
        rows = []
        for index, first in places:
            codes = self.clips.codes(index)[first : first + frames]
            rows.append(np.pad(codes, ((0, frames - len(codes)), (0, 0)), mode="edge"))
        return torch.from_numpy(np.stack(rows))

    def _crop(self, index: int, first: int, frames: int) -> NDArray[np.float32]:
        wanted = min(frames, self.clips.clips[index].frames - first)
        samples = self.clips.samples(index, first, wanted)
        return np.pad(samples, (0, (frames - wanted) * SAMPLES_PER_FRAME))
