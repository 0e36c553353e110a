"""One-row passes through a transformer on a CPU, a compiled piece a layer.

What stands between the matrix products of a layer (norms, rotary positions, attention over the cache, activations,
residuals, making bytes of a row for an int8 product) is dozens of small operations, each of which costs its dispatch
and a trip through memory. A piece reads the cache and returns its own keys and values, which are written for all
layers at once afterwards: a compiled piece that wrote the cache would copy it.

Letters: B rows, L positions of the cache, H heads, K key-value heads, D width, d head width.
"""

import itertools
from collections.abc import Callable
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
        self._layers: list[tuple[_Tensors, tuple[_Tensors, ...]]] = []
        for block in transformer.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            norms = (block.input_layernorm, attention.q_norm, attention.k_norm, block.post_attention_layernorm)
            products = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
            packed = [_packed(product) for product in products]
            self._kind = type(packed[0])
            self._layers.append(
                (tuple(norm.weight.float() for norm in norms), tuple(product.weights for product in packed))
            )
        for norms_, products_ in self._layers:
            for tensor in (*norms_, *sum(products_, ())):
                torch._dynamo.mark_static(tensor)  # of the sizes only B and L change
        self._layer = torch.compile(_copy(_layer), dynamic=True, fullgraph=True)

    def __call__(self, x: Tensor, positions: Tensor, kv: Tensor) -> Tensor:
        """x [B, D], positions [B] int64, kv [layers, 2, B, L, K, d] (written in place) -> hidden [B, D]."""
        config, eps = self._config, self._config.rms_norm_eps
        cos, sin = rope_table(positions[:, None], config.head_dim, config.rope_theta, torch.float32)
        rope = (cos[:, 0], sin[:, 0])  # [B, 1, d] each
        hidden = x.float()
        written = []
        for (norms, products), layer_kv in zip(self._layers, kv, strict=True):
            hidden, own = self._layer(hidden, norms, products, rope, layer_kv, positions, eps, self._kind)
            written.append(own)
        kv[:, :, torch.arange(len(x), device=x.device), positions] = torch.stack(written).to(kv.dtype)
        return F.rms_norm(hidden, self._norm.shape, self._norm.float(), eps).to(x.dtype)


def _layer(
    hidden: Tensor,
    norms: _Tensors,
    products: tuple[_Tensors, ...],
    rope: tuple[Tensor, Tensor],
    kv: Tensor,
    positions: Tensor,
    eps: float,
    kind: type[PackedLinear],
) -> tuple[Tensor, Tensor]:
    """hidden [B, D], the cache [2, B, L, K, d] before `positions` -> the layer's output [B, D], its own keys and values
    [2, B, K, d]."""
    enter, q_norm, k_norm, leave = norms
    qkv, out, gate_up, down = products
    batch, length, kv_heads, width = kv.shape[1:]
    heads = kind.multiply(_normed(hidden, enter, eps), qkv).view(batch, -1, width)  # [B, H + 2 K, d]
    q, k, v = torch.split(heads, [heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    k = rotate(_normed(k, k_norm, eps), rope)
    grouped = rotate(_normed(q, q_norm, eps), rope).view(batch, 1, kv_heads, -1, width)  # [B, 1, K, H / K, d]
    places = torch.arange(length, device=positions.device)
    is_own = (places == positions[:, None])[:, :, None, None]  # [B, L, 1, 1]
    keys = torch.where(is_own, k[:, None], kv[0].float())[:, :, :, None]  # [B, L, K, 1, d]
    values = torch.where(is_own, v[:, None], kv[1].float())[:, :, :, None]
    scores = (grouped * keys).sum(-1) * width**-0.5  # [B, L, K, H / K]
    unseen = (places > positions[:, None])[:, :, None, None]
    weights = scores.masked_fill(unseen, -torch.inf).softmax(dim=1)
    read = (weights[..., None] * values).sum(1)  # [B, K, H / K, d]
    hidden = hidden + kind.multiply(read.view(batch, -1), out)
    gate, up = kind.multiply(_normed(hidden, leave, eps), gate_up).chunk(2, dim=-1)
    return hidden + kind.multiply(F.silu(gate) * up, down), torch.stack((k, v))


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
