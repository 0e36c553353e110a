"""Linear layers whose weights are stored as the CPU's matrix kernels (oneDNN) read them, in bfloat16 or int8.

F.linear rearranges a bfloat16 weight at every call and reads 20 GB/s of it, where the memory gives 60 to 70. These
layers rearrange it once. The operations are those that torch.compile emits for frozen weights.

Int8 is dynamic: one scale per output channel of the weight, and one per row of the input, computed from the row. Sums
are exact integers, so a row's result does not depend on the rest of the batch.

Letters: N rows, K inputs, M outputs.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = Literal["float32", "bfloat16", "int8"]

_LEVELS = 127
_ZERO = 128  # the zero point of the unsigned bytes that the kernel reads


class PackedLinear(nn.Module):
    """y = x W^T + b."""

    def __init__(self, weights: tuple[Tensor, ...], bias: Tensor | None) -> None:
        super().__init__()
        self.weights = weights
        self.bias = bias

    def multiply(self, x: Tensor) -> Tensor:
        """x [N, K] -> x W^T, [N, M] float32."""
        raise NotImplementedError  # every subclass has its own

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., M]."""
        y = self.multiply(x.flatten(0, -2))
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class Float32Linear(PackedLinear):
    """The plain product of an unpacked weight, for comparison."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight [M, K], bias [M]."""
        super().__init__((weight.float(),), bias)

    def multiply(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weights[0])


class BFloat16Linear(PackedLinear):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight [M, K], bias [M]."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), None)
        super().__init__((packed,), bias)

    def multiply(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x.bfloat16(), *self.weights, None, "none", [], "")
        return product.float()


class Int8Linear(PackedLinear):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight [M, K], bias [M]."""
        rounded, scale = quantise(weight)
        zero_points = torch.zeros(len(weight), dtype=torch.int32)
        super().__init__((torch.ops.onednn.qlinear_prepack(rounded, None), scale, zero_points), bias)

    def multiply(self, x: Tensor) -> Tensor:
        rows = x.float()
        scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LEVELS
        bytes_around_zero = ((rows / scale).round() + _ZERO).to(torch.uint8)
        product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            bytes_around_zero, 1.0, _ZERO, *self.weights, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product * scale


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [M, K] -> int8 [M, K] and the scale of every output, float32 [M]."""
    scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / _LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


_KINDS: dict[Weights, type[Float32Linear] | type[BFloat16Linear] | type[Int8Linear]] = {
    "float32": Float32Linear,
    "bfloat16": BFloat16Linear,
    "int8": Int8Linear,
}


def packer(weights: Weights) -> Callable[[Sequence[nn.Module]], PackedLinear]:
    """Return a function that packs linear layers with one input into one; its output is their outputs side by side."""
    kind = _KINDS[weights]

    def pack(layers: Sequence[nn.Module]) -> PackedLinear:
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        assert len(linear) == len(layers), "packed already"
        biases: list[Tensor] = [layer.bias for layer in linear if layer.bias is not None]
        bias = torch.cat(biases) if biases else None
        return kind(torch.cat([layer.weight for layer in linear]), bias)

    return pack
