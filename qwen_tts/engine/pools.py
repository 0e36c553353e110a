"""The tensors of the engine: pools with one row per slot, allocated once.

Letters: D talker width, G code groups, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_tts.engine.kv_cache import allocate_kv_cache, allocate_pool
from qwen_tts.engine.sampling import SamplingRows
from qwen_tts.models.talker import Talker


@dataclass(frozen=True)
class Pools:
    """What the passes read and write. Only the thread that steps the engine uses it."""

    kv: Tensor  # [layers, 2, slots, positions, kv_heads, head_dim]
    predictor_kv: Tensor  # the same for the code predictor, with G positions
    hidden: Tensor  # [slots, D] of the newest row that was read
    codes: Tensor  # [slots, G] int64, the newest frame
    # [slots, positions, D]. Row n is added to the input of decode step n. The last row of a sequence is tts_pad, which
    # every later step uses.
    trailing_text: Tensor
    seen: Tensor  # [slots, V] bool: codes of group 0 that the sequence has had
    seeds: Tensor  # [slots] int64
    repetition_penalty: Tensor  # [slots]
    sampling: SamplingRows
    predictor_sampling: SamplingRows

    @classmethod
    def allocate(cls, talker: Talker, slots: int, positions: int) -> "Pools":
        """Allocate on the talker's device in its dtype. `positions` bounds prompt rows plus frames of one sequence."""
        config = talker.config
        weight = talker.model.codec_embedding.weight
        device, dtype = weight.device, weight.dtype
        groups, width = config.num_code_groups, config.hidden_size
        return cls(
            kv=allocate_kv_cache(config, slots, positions, device, dtype),
            predictor_kv=allocate_kv_cache(config.code_predictor_config, slots, groups, device, dtype),
            hidden=torch.zeros((slots, width), device=device, dtype=dtype),
            codes=torch.zeros((slots, groups), device=device, dtype=torch.int64),
            trailing_text=allocate_pool((slots, positions, width), device, dtype),
            seen=torch.zeros((slots, config.vocab_size), device=device, dtype=torch.bool),
            seeds=torch.zeros(slots, device=device, dtype=torch.int64),
            repetition_penalty=torch.ones(slots, device=device),
            sampling=SamplingRows.allocate(slots, device),
            predictor_sampling=SamplingRows.allocate(slots, device),
        )

    @property
    def slots(self) -> int:
        return self.kv.shape[2]

    @property
    def positions(self) -> int:
        return self.kv.shape[3]

    @property
    def device(self) -> torch.device:
        return self.kv.device

    @contextmanager
    def kept(self, slots: list[int]) -> Iterator[None]:
        """Restore the newest frames and the seen codes of `slots` after a draw that computes on their rows too.

        If the draw raises, those of all slots are restored, so that it can be repeated.
        """
        codes, seen = self.codes.clone(), self.seen.clone()
        try:
            yield
        except BaseException:
            self.codes.copy_(codes)
            self.seen.copy_(seen)
            raise
        if slots:
            self.codes[slots], self.seen[slots] = codes[slots], seen[slots]
