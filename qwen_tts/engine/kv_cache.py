"""Allocates the memory of the engine's pools, and the KV cache: one tensor for all layers and all slots."""

import math

import numpy as np
import torch
from torch import Tensor

from qwen_tts.config import TransformerConfig


def allocate_pool(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return zeros of `shape`. On a CPU the operating system commits a page only when it is written.

    torch.zeros would write all pages: 15 GB at the 0.6B shape with 8 slots of 8192 positions in float32. Uninitialised
    memory would not do, because a masked attention weight of 0 times a NaN is NaN.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    pages = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(dtype).view(shape)


def allocate_kv_cache(
    config: TransformerConfig, slots: int, positions: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return [layers, 2, slots, positions, kv_heads, head_dim]. Index 0 of the second axis holds keys, 1 values.

    A running sequence owns one slot and has written positions [0, sequence.position). Later positions are never read.
    """
    # On a CPU the tensor is a part of one with one more slot and one more position, which are never committed. So the
    # strides of no part follow from its sizes, and code compiled by torch needs no second variant for all slots or all
    # positions.
    more = 1 if device.type == "cpu" else 0
    shape = (config.num_hidden_layers, 2, slots + more, positions + more, config.num_key_value_heads, config.head_dim)
    return allocate_pool(shape, device, dtype)[:, :, :slots, :positions]
