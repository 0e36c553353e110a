"""flash_attn_with_kvcache in plain torch, after the documentation of flash-attn 2: the kernel needs a GPU."""

import importlib.machinery
import types

import torch
from torch import Tensor


def flash_attn_with_kvcache(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, *, cache_seqlens: Tensor, causal: bool
) -> Tensor:
    """q [B, T, H, d], caches [B, L, K, d], cache_seqlens [B] int32 -> [B, T, H, d].

    The queries of row b stand at the end of its first cache_seqlens[b] keys; query head h reads key head h // (H / K).
    """
    assert causal
    assert cache_seqlens.dtype == torch.int32
    assert k_cache.shape == v_cache.shape
    out = torch.empty_like(q)
    group = q.shape[2] // k_cache.shape[2]
    for row, length in enumerate(cache_seqlens.tolist()):
        keys, values = k_cache[row, :length], v_cache[row, :length]
        for index in range(q.shape[1]):
            seen = length - q.shape[1] + index + 1
            for head in range(q.shape[2]):
                scores = keys[:seen, head // group] @ q[row, index, head] / q.shape[3] ** 0.5
                out[row, index, head] = scores.softmax(dim=0) @ values[:seen, head // group]
    return out


def flash_attn_module() -> types.ModuleType:
    """What `import flash_attn` finds in sys.modules."""
    module = types.ModuleType("flash_attn")
    module.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
    module.flash_attn_with_kvcache = flash_attn_with_kvcache  # type: ignore[attr-defined]
    return module
