"""The KV cache: one tensor for all layers and all slots."""

import torch
from torch import Tensor

from qwen_tts.config import TransformerConfig


def allocate_kv_cache(
    config: TransformerConfig, slots: int, positions: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """[layers, 2, slots, positions, kv_heads, head_dim]; index 0 of the second axis holds keys, 1 values.

    A running sequence owns one slot and has written positions [0, sequence.position); what lies beyond is never read.
    Zeros rather than empty: the operating system then commits pages only as positions are written, and a masked
    attention weight of 0 times an unwritten NaN would still be NaN.
    """
    shape = (config.num_hidden_layers, 2, slots, positions, config.num_key_value_heads, config.head_dim)
    return torch.zeros(shape, device=device, dtype=dtype)
