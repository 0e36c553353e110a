"""Give a data set its codes."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from qwen_tts.codec.encoder import load_codec_encoder
from qwen_tts.train.clips import ClipSet, write_codes

_AT_ONCE = 16


def encode_clips(data: Path, codec: Path) -> None:
    """Encode every clip of the data set with a codec directory, each as if alone, as a request's reference would be."""
    encoder, config = load_codec_encoder(codec, torch.device("cpu"))
    clips, groups = ClipSet(data), config.decoder_config.num_quantizers
    codes: list[NDArray[np.uint16]] = []
    for start in tqdm(range(0, len(clips), _AT_ONCE), "codes", unit_scale=_AT_ONCE, unit="clip"):
        indices = range(start, min(start + _AT_ONCE, len(clips)))
        encoded = encoder.encode([torch.from_numpy(clips.samples(index)) for index in indices], groups)
        for index, frames in zip(indices, encoded, strict=True):
            assert len(frames) == clips.clips[index].frames, (index, frames.shape)
            codes.append(frames.numpy().astype(np.uint16))
    write_codes(data, codes)
