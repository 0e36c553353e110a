"""One-row passes through a transformer on a CPU, two compiled pieces a layer.

What stands between the matrix products of a layer (norms, rotary positions, attention over the cache, activations,
residuals, making bytes of a row for an int8 product) is dozens of small operations, each of which costs its dispatch
and a trip through memory. The cache is written between the pieces: a compiled piece that writes and reads it copies it.

Letters: B rows, L positions of the cache, H heads, K key-value heads, D width, d head width.
"""

import itertools
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_tts.layers import Block, Transformer, rope_table, rotate
from qwen_tts.packed_linear import PackedLinear

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Tensors = tuple[Tensor, ...]
_COPIES = itertools.count()


class FusedDecode:
    """A Transformer's `decode`, over its weights, which have been packed."""

    def __init__(self, transformer: Transformer) -> None:
        self._config = transformer.config
        self._norm = transformer.norm.weight
        self._layers: list[tuple[_Tensors, _Tensors, tuple[_Tensors, _Tensors, _Tensors]]] = []
        for block in transformer.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            norms = (block.input_layernorm, attention.q_norm, attention.k_norm, block.post_attention_layernorm)
            qkv, out, gate_up, down = (
                _packed(product) for product in (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
            )
            self._kind = type(qkv)
            products = (out.weights, gate_up.weights, down.weights)
            self._layers.append((tuple(norm.weight.float() for norm in norms), qkv.weights, products))
        self._heads = torch.empty(self._config.num_key_value_heads, self._config.head_dim)
        for tensor in (self._heads, *(t for layer in self._layers for t in (*layer[0], *layer[1], *sum(layer[2], ())))):
            torch._dynamo.mark_static(tensor)  # of the sizes only B and L change
        self._to_cache = torch.compile(_copy(_to_cache), dynamic=True, fullgraph=True)
        self._from_cache = torch.compile(_copy(_from_cache), dynamic=True, fullgraph=True)

    def __call__(self, x: Tensor, positions: Tensor, kv: Iterable[Tensor]) -> Tensor:
        """x [B, D], positions [B] int64, kv [2, B, L, K, d] of every layer (written in place) -> hidden [B, D]."""
        config, kind, eps = self._config, self._kind, self._config.rms_norm_eps
        cos, sin = rope_table(positions[:, None], config.head_dim, config.rope_theta, torch.float32)
        rope = (cos[:, 0], sin[:, 0])  # [B, 1, d] each
        rows = torch.arange(len(x), device=x.device)
        hidden = x.float()
        for (norms, qkv, products), layer_kv in zip(self._layers, kv, strict=True):
            q, new = self._to_cache(hidden, norms, qkv, rope, self._heads, eps, kind)
            layer_kv[:, rows, positions] = new.to(layer_kv.dtype)
            hidden = self._from_cache(hidden, q, layer_kv, positions, self._heads, norms[3], products, eps, kind)
        return F.rms_norm(hidden, self._norm.shape, self._norm.float(), eps).to(x.dtype)


def _to_cache(
    hidden: Tensor,
    norms: _Tensors,
    qkv: _Tensors,
    rope: tuple[Tensor, Tensor],
    shape: Tensor,
    eps: float,
    kind: type[PackedLinear],
) -> tuple[Tensor, Tensor]:
    """hidden [B, D] -> queries [B, H, d]; keys and values [2, B, K, d]."""
    enter, q_norm, k_norm, _ = norms
    kv_heads, width = shape.shape
    hidden = hidden.view(-1, enter.shape[0])
    product = kind.multiply(_normed(hidden, enter, eps), qkv)
    heads = product.view(product.shape[0], -1, width)  # [B, H + 2 K, d]
    q, k, v = torch.split(heads, [heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    return rotate(_normed(q, q_norm, eps), rope), torch.stack((rotate(_normed(k, k_norm, eps), rope), v))


def _from_cache(
    hidden: Tensor,
    q: Tensor,
    kv: Tensor,
    positions: Tensor,
    shape: Tensor,
    norm: Tensor,
    products: tuple[_Tensors, _Tensors, _Tensors],
    eps: float,
    kind: type[PackedLinear],
) -> Tensor:
    """hidden [B, D], queries [B, H, d], the cache [2, B, L, K, d] -> the layer's output [B, D]."""
    out, gate_up, down = products
    kv_heads, width = shape.shape
    batch, length = kv.shape[1:3]
    assert kv.shape[3:] == (kv_heads, width)  # and so constant
    hidden = hidden.view(batch, norm.shape[0])
    grouped = q.view(batch, 1, kv_heads, -1, width)  # [B, 1, K, H / K, d]
    scores = (grouped * kv[0].float()[:, :, :, None]).sum(-1) * width**-0.5  # [B, L, K, H / K]
    unseen = torch.arange(length, device=positions.device) > positions[:, None]
    weights = scores.masked_fill(unseen[:, :, None, None], -torch.inf).softmax(dim=1)
    read = (weights[..., None] * kv[1].float()[:, :, :, None]).sum(1)  # [B, K, H / K, d]
    hidden = hidden + kind.multiply(read.view(batch, -1), out)
    gate, up = kind.multiply(_normed(hidden, norm, eps), gate_up).chunk(2, dim=-1)
    return hidden + kind.multiply(F.silu(gate) * up, down)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _packed(layer: object) -> PackedLinear:
    assert isinstance(layer, PackedLinear), "pack the transformer first"
    return layer


def _copy(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """torch.compile counts the variants of a piece of code; every transformer has its own."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_COPIES)}")
    return cast("Callable[_P, _R]", FunctionType(code, function.__globals__))
