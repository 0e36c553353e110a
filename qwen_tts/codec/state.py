"""DecoderState: the pool of decoder states, allocated once, with one slot per running stream."""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder


class DecoderState:
    """`slots` rows with the state of a stream each (about 5 MiB in float32 at the released size).

    A slot belongs to one stream from `lease` to `release`.
    """

    def __init__(self, decoder: CodecDecoder, slots: int) -> None:
        weight = decoder.pre_conv.conv.weight
        with torch.inference_mode():
            # Decode one frame, to find the tensors of a stream and their shapes.
            probe = Carry()
            decoder(torch.zeros((1, 1, decoder.config.num_quantizers), dtype=torch.int64, device=weight.device), probe)
        self.tensors = [
            torch.zeros((slots, *kept.shape[1:]), dtype=kept.dtype, device=kept.device) for kept in probe.kept
        ]
        self.slots = slots
        self._free = list(range(slots))

    @property
    def used(self) -> int:
        return self.slots - len(self._free)

    def lease(self) -> int | None:
        """Return a slot in the state of a stream's start (all zero), or None when no slot is free."""
        if not self._free:
            return None
        slot = heapq.heappop(self._free)
        for tensor in self.tensors:
            tensor[slot] = 0
        return slot

    def release(self, slot: int) -> None:
        assert 0 <= slot < self.slots, slot
        assert slot not in self._free, f"slot {slot} released twice"
        heapq.heappush(self._free, slot)

    def gather(self, slots: Sequence[int]) -> Carry:
        rows = self._index(slots)
        return Carry([tensor[rows] for tensor in self.tensors])

    def scatter(self, slots: Sequence[int], carry: Carry) -> None:
        rows = self._index(slots)
        for tensor, kept in zip(self.tensors, carry.kept, strict=True):
            tensor[rows] = kept

    def _index(self, slots: Sequence[int]) -> Tensor:
        assert len(set(slots)) == len(slots), slots
        assert not set(slots) & set(self._free), f"slots {slots} are not all leased"
        return torch.tensor(slots, device=self.tensors[0].device)
