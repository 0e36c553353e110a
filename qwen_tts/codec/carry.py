"""What a causal layer remembers between two pieces of one stream.

Every stateful layer calls `carry.take(...)` for what it kept of the piece before, and `carry.keep(...)` with what
the next piece needs. Layers run in one fixed order, so the order of the calls is the schema: running the decoder once
on a fresh Carry tells which tensors, of which shapes, one stream has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Carry:
    """State of B streams passing through the decoder: `old` from the piece before (None: all streams are at their
    start, where everything kept is zero), `kept` for the piece after."""

    def __init__(self, old: Sequence[Tensor] | None = None) -> None:
        self._old = None if old is None else iter(old)
        self.kept: list[Tensor] = []

    def take(self, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """This layer's tensor, of `shape` [B, ...]."""
        if self._old is None:
            return torch.zeros(tuple(shape), dtype=dtype, device=device)
        tensor = next(self._old)
        assert tensor.shape == torch.Size(shape), (tensor.shape, shape)
        return tensor

    def keep(self, tensor: Tensor) -> None:
        self.kept.append(tensor)
