"""The state of causal layers between two pieces of one stream.

Every stateful layer calls `carry.take(...)` for the state that it kept after the previous piece, and `carry.keep(...)`
with the state for the next piece. Layers run in one fixed order, so the order of the calls is the schema: one run of
the decoder on a fresh Carry shows the tensors of a stream and their shapes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Carry:
    """The state of B streams in the decoder: `old` is from the previous piece, `kept` is for the next one.

    With `old` None all streams are at their start, where all state is zero.
    """

    def __init__(self, old: Sequence[Tensor] | None = None) -> None:
        self._old = None if old is None else iter(old)
        self.kept: list[Tensor] = []

    def take(self, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return this layer's tensor, of `shape` [B, ...]."""
        if self._old is None:
            return torch.zeros(tuple(shape), dtype=dtype, device=device)
        tensor = next(self._old, None)
        assert tensor is not None, "the decoder kept less state after the previous piece than it takes now"
        assert tensor.shape == torch.Size(shape), (tensor.shape, shape)
        return tensor

    def keep(self, tensor: Tensor) -> None:
        self.kept.append(tensor)
