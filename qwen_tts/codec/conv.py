"""Causal convolutions that carry their state: any split of a stream into pieces gives the samples of the whole.

Letters: B streams, C channels, T positions at the layer's rate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.codec.carry import Carry


class CausalConv(nn.Module):
    """A Conv1d over the current and earlier positions. It carries the last (kernel - 1) * dilation inputs."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, groups=groups)
        self.reach = (kernel - 1) * dilation

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        """x [B, C, T] -> [B, C', T]."""
        if self.reach:
            left = carry.take((x.shape[0], x.shape[1], self.reach), dtype=x.dtype, device=x.device)
            x = torch.cat((left, x), dim=2)
            carry.keep(x[:, :, -self.reach :])
        out: Tensor = self.conv(x)
        return out


class CausalTransposedConv(nn.Module):
    """A transposed Conv1d. Its last kernel - stride samples belong to the next piece and are carried."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        assert stride <= kernel <= 2 * stride, (kernel, stride)  # a longer tail would reach past the next piece
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
        self.overlap = kernel - stride

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        """x [B, C, T] -> [B, C', T * stride]."""
        # A matrix product takes a quarter of the time of the CPU's transposed convolution. Every position gives
        # `kernel` samples; the last `overlap` of them are added to those of the next position.
        weight, stride = self.conv.weight, self.conv.stride[0]
        y = (x.transpose(1, 2) @ weight.flatten(1)).view(*x.shape[::2], *weight.shape[1:])  # [B, T, C', kernel]
        own, over = y[..., :stride], y[..., stride:]
        if self.overlap:
            tail = carry.take((x.shape[0], weight.shape[1], self.overlap), dtype=y.dtype, device=y.device)
            carry.keep(over[:, -1])
            own = own + F.pad(torch.cat((tail[:, None], over[:, :-1]), dim=1), (0, stride - self.overlap))
        assert self.conv.bias is not None
        samples: Tensor = own.transpose(1, 2).flatten(2) + self.conv.bias[:, None]
        return samples


class SnakeBeta(nn.Module):
    """x + sin^2(x e^alpha) / e^beta per channel (arXiv:2206.04658); alpha and beta are stored as logarithms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(x * self.alpha.exp()[:, None]).square()
        return x + wave / (self.beta.exp()[:, None] + 1e-9)


class ConvNeXt(nn.Module):
    """A depthwise causal convolution and a pointwise MLP, with a residual (arXiv:2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        y = self.norm(self.dwconv(x, carry).transpose(1, 2))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        out: Tensor = x + y.transpose(1, 2)
        return out


class ResidualUnit(nn.Module):
    """Two activated convolutions, the first one dilated, with a residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation=dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        out: Tensor = x + self.conv2(self.act2(self.conv1(self.act1(x), carry)), carry)
        return out


class UpsampleBlock(nn.Module):
    """An activation, a transposed convolution by `rate` that halves the channels, and three residual units."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        half = channels // 2
        self.block = nn.ModuleList(
            [
                SnakeBeta(channels),
                CausalTransposedConv(channels, half, 2 * rate, rate),
                *(ResidualUnit(half, dilation) for dilation in (1, 3, 9)),
            ]
        )

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        x = self.block[0](x)
        for layer in self.block[1:]:
            x = layer(x, carry)
        return x
