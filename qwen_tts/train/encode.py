"""Encode the clips of a data set."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from qwen_tts.train.clips import ClipSet, write_codes

_AT_ONCE = 16


def encode_clips(data: Path, encode: Callable[[Tensor], Tensor], workers: int) -> None:
    """Encode every clip of the data set. `encode` turns samples [S] into codes [F, G].

    The tensors of one clip are too small to share among cores, so each of `workers` threads encodes whole clips.
    """
    clips = ClipSet(data)

    def encoded(first: int) -> NDArray[np.uint16]:
        indices = range(first, min(first + _AT_ONCE, len(clips)))
        codes = [encode(torch.from_numpy(clips.samples(index))) for index in indices]
        assert [len(rows) for rows in codes] == [clips.clips[index].frames for index in indices]
        return torch.cat(codes).numpy().astype(np.uint16)

    starts = range(0, len(clips), _AT_ONCE)
    with ThreadPoolExecutor(workers) as pool:
        write_codes(data, tqdm(pool.map(encoded, starts), "codes", total=len(starts), unit=f"{_AT_ONCE} clips"))
