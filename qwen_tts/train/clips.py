"""A data set on disk: clips of speech and their descriptions.

    clips.jsonl   one Clip per line, in the order of the audio
    audio.i16     all samples one after the other, 24 kHz, little-endian int16
    codes.npy     uint16 [all frames, G], the audio encoded by a codec (absent before that)

A clip has a whole number of codec frames. Both arrays are memory-mapped, so a data set may be larger than memory.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 24000
SAMPLES_PER_FRAME = 1920  # 80 ms
SOUNDS_PER_FRAME = 2
CLIPS, AUDIO, CODES = "clips.jsonl", "audio.i16", "codes.npy"


@dataclass(frozen=True)
class Clip:
    """`voice` identifies the voice: clips of one voice can serve as each other's reference. `speaker` is the built-in
    voice of which the clip is an example, `description` a designed voice; `instructions` belong to `speaker`. `sounds`
    names the phones, SOUNDS_PER_FRAME for every frame, separated by spaces; it is empty where they are unknown."""

    text: str
    voice: str
    frames: int
    speaker: str = ""
    instructions: str = ""
    description: str = ""
    language: str = "english"
    sounds: str = ""


class ClipWriter:
    """Appends clips to a data set. After an interruption the data set holds whole clips."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lines = (directory / CLIPS).open("a+", encoding="utf-8")
        self._audio = (directory / AUDIO).open("ab")
        self._lines.seek(0)
        frames = [json.loads(line)["frames"] for line in self._lines]
        self.count = len(frames)
        self._audio.truncate(sum(frames) * SAMPLES_PER_FRAME * 2)

    def append(self, clip: Clip, samples: NDArray[np.int16]) -> None:
        assert samples.dtype == np.int16, samples.dtype
        assert len(samples) == clip.frames * SAMPLES_PER_FRAME, (len(samples), clip.frames)
        samples.tofile(self._audio)
        self._audio.flush()
        self._lines.write(json.dumps(dataclasses.asdict(clip)) + "\n")
        self._lines.flush()
        self.count += 1

    def close(self) -> None:
        self._lines.close()
        self._audio.close()


class ClipSet:
    """The clips of a data set directory, by number."""

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        with (directory / CLIPS).open(encoding="utf-8") as lines:
            self.clips = [Clip(**json.loads(line)) for line in lines][:limit]
        self.ends = np.cumsum([clip.frames for clip in self.clips])
        self._audio = np.memmap(directory / AUDIO, dtype=np.int16, mode="r")
        codes = directory / CODES
        self._codes = np.load(codes, mmap_mode="r") if codes.exists() else None
        self.directory = directory

    def __len__(self) -> int:
        return len(self.clips)

    def samples(self, index: int, first_frame: int = 0, frames: int | None = None) -> NDArray[np.float32]:
        """Return `frames` frames of a clip (with None: to its end), from `first_frame` on, as samples in [-1, 1]."""
        start = int(self.ends[index]) - self.clips[index].frames + first_frame
        end = int(self.ends[index]) if frames is None else start + frames
        pcm = self._audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        return pcm.astype(np.float32) / np.float32(32768)

    def codes(self, index: int) -> NDArray[np.int64]:
        """Return the codes [F, G] of a clip."""
        assert self._codes is not None, "the data set has not been encoded"
        end = int(self.ends[index])
        codes: NDArray[np.int64] = self._codes[end - self.clips[index].frames : end].astype(np.int64)
        return codes


def write_codes(directory: Path, codes: Iterable[NDArray[np.uint16]]) -> None:
    """Store the codes [F, G] of all clips, in order. The file appears complete or not at all."""
    partial = directory / "codes.partial.npy"
    np.save(partial, np.concatenate(list(codes)))
    partial.rename(directory / CODES)
