"""Transformers and linear layers computed by transformer.cpp: a pass through all layers is one call.

Weights are float32, bfloat16 or int8. The cache is float32 with float32 weights, else bfloat16. All else is float32.
Int8 is as in packed_linear.py.

Letters: B rows, T positions of this pass, L positions of the cache, K key-value heads, D width, d head width, M
outputs, N inputs.
"""

import ctypes
from collections.abc import Iterable
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.layers import Block, Transformer, rope_table
from qwen_tts.native.build import load_library
from qwen_tts.packed_linear import Weights, quantise

# Constants of transformer.cpp.
_LANE_BYTES, _PANEL, _TOGETHER = 4, 16, 4
_DTYPES: dict[Weights, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


class _Linear(Structure):
    _fields_ = [
        ("panels", c_void_p), ("scale", c_void_p), ("offset", c_void_p),
        ("inputs", c_int32), ("outputs", c_int32), ("steps", c_int32), ("panel_count", c_int32),
    ]  # fmt: skip


class _Layer(Structure):
    _fields_ = [
        ("qkv", _Linear), ("out", _Linear), ("gate_up", _Linear), ("down", _Linear),
        ("enter", c_void_p), ("q_norm", c_void_p), ("k_norm", c_void_p), ("leave", c_void_p),
    ]  # fmt: skip


class _Stack(Structure):
    _fields_ = [
        ("layer_count", c_int32), ("width", c_int32), ("heads", c_int32), ("kv_heads", c_int32), ("head_dim", c_int32),
        ("inner", c_int32), ("eps", c_float), ("layers", POINTER(_Layer)), ("norm", c_void_p),
    ]  # fmt: skip


class _Pass(Structure):
    _fields_ = [
        ("count", c_int32), ("x", c_void_p), ("rows", c_void_p), ("positions", c_void_p), ("cos", c_void_p),
        ("sin", c_void_p), ("cache", c_void_p), ("layer_stride", c_int64), ("value_stride", c_int64),
        ("row_stride", c_int64), ("position_stride", c_int64),
    ]  # fmt: skip


class Native:
    """transformer.cpp compiled for these `kinds` of weights, with a team of threads.

    The constructor raises UnsupportedError where it cannot be compiled.
    """

    def __init__(self, threads: int, kinds: Iterable[Weights]) -> None:
        self.library = load_library(kinds)
        self.library.new_team.restype = c_void_p
        self.team = c_void_p(self.library.new_team(threads))  # lives as long as the process

    def read(self, weights: Weights, stack: _Stack, one_pass: _Pass) -> None:
        getattr(self.library, f"read_{weights}")(self.team, ctypes.byref(stack), ctypes.byref(one_pass))

    def multiply(self, weights: Weights, linear: _Linear, x: Tensor, y: Tensor) -> None:
        function = getattr(self.library, f"multiply_{weights}")
        function(self.team, ctypes.byref(linear), c_void_p(x.data_ptr()), c_int32(len(x)), c_void_p(y.data_ptr()))


class Panels:
    """Weights [M, N] in the layout that transformer.cpp reads."""

    def __init__(self, weight: Tensor, weights: Weights) -> None:
        outputs, inputs = weight.shape
        self._kept: list[Tensor] = []
        scale = offset = None
        if weights == "int8":
            values, scale = quantise(weight)
            offset = 128 * values.sum(dim=1, dtype=torch.int32)
        else:
            values = weight.to(_DTYPES[weights])
        per_lane = _LANE_BYTES // values.element_size()
        padded = F.pad(values, (0, -inputs % (_PANEL * per_lane), 0, -outputs % (_PANEL * _TOGETHER)))
        panels = padded.view(-1, _PANEL, padded.shape[1] // per_lane, per_lane).permute(0, 2, 1, 3)
        # numpy requests huge pages. Without them every second page that is read costs a walk through the page tables.
        kept = torch.from_numpy(np.empty(padded.numel() * padded.element_size(), np.uint8)).view(values.dtype)
        kept.view(panels.shape).copy_(panels)
        self.linear = _Linear(
            self._pointer(kept),
            None if scale is None else self._pointer(F.pad(scale, (0, -outputs % _PANEL))),
            None if offset is None else self._pointer(F.pad(offset, (0, -outputs % _PANEL))),
            inputs, outputs, padded.shape[1] // per_lane, len(panels),
        )  # fmt: skip

    def _pointer(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


class NativeLinear(nn.Module):
    """A linear layer, y = x W^T + b, with float32 or bfloat16 weights."""

    def __init__(self, native: Native, layer: nn.Linear, weights: Weights) -> None:
        super().__init__()
        self._native, self._weights = native, weights
        self._panels = Panels(layer.weight, weights)
        self._bias = None if layer.bias is None else layer.bias.float()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., N] -> [..., M]."""
        rows = x.reshape(-1, x.shape[-1]).float().contiguous()
        y = torch.empty((len(rows), self._panels.linear.outputs))
        self._native.multiply(self._weights, self._panels.linear, rows, y)
        if self._bias is not None:
            y += self._bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class NativeTransformer:
    """The layers of a Transformer with weights of their own, called as the Transformer is."""

    def __init__(self, native: Native, transformer: Transformer, weights: Weights) -> None:
        config = transformer.config
        self._native, self._weights, self._config = native, weights, config
        self._kept: list[Tensor | Panels] = []
        layers = [self._layer(block) for block in transformer.layers if isinstance(block, Block)]
        self._stack = _Stack(
            len(layers), config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim,
            config.intermediate_size, config.rms_norm_eps, (_Layer * len(layers))(*layers),
            self._pointer(transformer.norm.weight),
        )  # fmt: skip
        self._rope = (torch.empty(0), torch.empty(0))  # cos and sin [positions, d / 2]

    def __call__(self, x: Tensor, positions: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, D], positions [B, T] int64, kv [layers, 2, B, L, K, d] (written in place) -> hidden [B, T, D].

        Row (b, t) sees the cache of b up to its own position, which is below L. That is what every mask of the engine
        says, so `mask` is not read.
        """
        batch, length = x.shape[:2]
        assert kv.dtype == (torch.float32 if self._weights == "float32" else torch.bfloat16), kv.dtype
        assert kv.stride()[4:] == (self._config.head_dim, 1), kv.stride()
        if len(self._rope[0]) < kv.shape[3]:
            self._rope = self._rope_up_to(kv.shape[3])
        hidden = torch.empty(x.shape, dtype=torch.float32)
        hidden.copy_(x)
        rows = torch.arange(batch).repeat_interleave(length)
        at = positions.reshape(-1).contiguous()
        self._native.read(
            self._weights,
            self._stack,
            _Pass(
                batch * length, hidden.data_ptr(), rows.data_ptr(), at.data_ptr(),
                self._rope[0].data_ptr(), self._rope[1].data_ptr(), kv.data_ptr(), *kv.stride()[:4],
            ),
        )  # fmt: skip
        return hidden.to(x.dtype)

    def _rope_up_to(self, length: int) -> tuple[Tensor, Tensor]:
        half = self._config.head_dim // 2
        positions = torch.arange(2 ** (length - 1).bit_length())[None]
        cos, sin = rope_table(positions, self._config.head_dim, self._config.rope_theta, torch.float32)
        return cos[0, :, 0, :half].contiguous(), sin[0, :, 0, :half].contiguous()

    def _layer(self, block: Block) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        products = [
            torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
            attention.o_proj.weight,
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            mlp.down_proj.weight,
        ]
        norms = (block.input_layernorm, attention.q_norm, attention.k_norm, block.post_attention_layernorm)
        return _Layer(*map(self._panels, products), *(self._pointer(norm.weight) for norm in norms))

    def _panels(self, weight: Tensor) -> _Linear:
        panels = Panels(weight, self._weights)
        self._kept.append(panels)
        return panels.linear

    def _pointer(self, weight: Tensor) -> int:
        tensor = weight.detach().float().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()
