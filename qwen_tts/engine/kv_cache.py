"""Memory of the engine's pools, and the KV cache: one tensor for all layers and all slots."""

import math

import numpy as np
import torch
from torch import Tensor

from qwen_tts.config import TransformerConfig


def allocate_pool(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros of `shape`. On the CPU the operating system commits its pages only as they are written.

    (torch.zeros writes them all: 15 GB at the 0.6B shape with 8 slots of 8192 positions in float32.) Zeros rather
    than uninitialised memory, because a masked attention weight of 0 times a NaN is still NaN.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    pages = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(dtype).view(shape)


def allocate_kv_cache(
    config: TransformerConfig, slots: int, positions: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """[layers, 2, slots, positions, kv_heads, head_dim]; index 0 of the second axis holds keys, 1 values.

    A running sequence owns one slot and has written positions [0, sequence.position); what lies beyond is never read.
    """
    # On a CPU one slot and one position more lie behind, never committed: compiled code would have to tell a part of
    # the pool whose strides follow from its sizes (all slots, or all positions) from one whose do not, and be compiled
    # for both.
    more = 1 if device.type == "cpu" else 0
    shape = (config.num_hidden_layers, 2, slots + more, positions + more, config.num_key_value_heads, config.head_dim)
    return allocate_pool(shape, device, dtype)[:, :, :slots, :positions]
