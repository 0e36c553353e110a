"""The codec decoder of a tiny checkpoint, run whole and in pieces."""

from pathlib import Path

import torch
from torch import Tensor

from qwen_tts.checkpoint import CODEC_DIRECTORY
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder, load_codec_decoder
from tests.qwen_tts.tiny import CPU, TINY

FRAME_SAMPLES = 1920
# Splitting a stream changes the order of float32 additions; samples are at most 1.
TOLERANCE = 1e-5


def load_decoder(checkpoint: Path) -> CodecDecoder:
    return load_codec_decoder(checkpoint / CODEC_DIRECTORY, CPU, torch.float32)


def random_codes(frames: int, *, streams: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(TINY.codebook, (streams, frames, TINY.groups), generator=generator)


@torch.inference_mode()
def decode(decoder: CodecDecoder, codes: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Samples [B, S] of codes [B, F, G], decoded in pieces of these sizes, the last size repeated."""
    if sizes is None:
        whole: Tensor = decoder(codes, Carry())
        return whole
    samples, start, carry = [], 0, Carry()
    for size in [*sizes, *[sizes[-1]] * codes.shape[1]]:
        if start < codes.shape[1]:
            samples.append(decoder(codes[:, start : start + size], carry))
            start, carry = start + size, Carry(carry.kept)
    return torch.cat(samples, dim=1)
