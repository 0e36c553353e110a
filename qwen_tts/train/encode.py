"""Give a data set its codes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from qwen_tts.codec.encoder import load_codec_encoder
from qwen_tts.train.clips import ClipSet, write_codes

_AT_ONCE = 16


def encode_clips(data: Path, codec: Path, workers: int) -> None:
    """Encode every clip of the data set with a codec directory, each as if alone, as a request's reference would be.

    One clip's tensors are too small to share among cores, so `workers` threads take clips each.
    """
    encoder, config = load_codec_encoder(codec, torch.device("cpu"))
    clips, groups = ClipSet(data), config.decoder_config.num_quantizers

    def encode(first: int) -> NDArray[np.uint16]:
        indices = range(first, min(first + _AT_ONCE, len(clips)))
        encoded = encoder.encode([torch.from_numpy(clips.samples(index)) for index in indices], groups)
        assert [len(codes) for codes in encoded] == [clips.clips[index].frames for index in indices]
        return torch.cat(encoded).numpy().astype(np.uint16)

    starts = range(0, len(clips), _AT_ONCE)
    with ThreadPoolExecutor(workers) as pool:
        write_codes(data, tqdm(pool.map(encode, starts), "codes", total=len(starts), unit=f"{_AT_ONCE} clips"))
