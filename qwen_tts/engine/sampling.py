"""Draws codes from logits.

The order is that of Hugging Face `generate`: repetition penalty, suppressed ids, temperature, top-k, top-p, draw.
A draw depends only on the seed, the frame and the code group, so a request gets the same codes in any batch.

Letters: B rows, V vocabulary, G code groups.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_tts.request import SamplingParams

# SplitMix64 (Steele, Lea, Flood 2014), with signed 64-bit integers: they wrap on multiplication, as it requires.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class SamplingRows:
    """SamplingParams of every slot: temperature float32, top_k int64, top_p float32, each [slots]."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor

    @classmethod
    def allocate(cls, slots: int, device: torch.device) -> "SamplingRows":
        return cls(
            temperature=torch.zeros(slots, device=device),
            top_k=torch.zeros(slots, dtype=torch.int64, device=device),
            top_p=torch.ones(slots, device=device),
        )

    def set(self, slot: int, params: SamplingParams) -> None:
        self.temperature[slot] = params.temperature
        self.top_k[slot] = params.top_k
        self.top_p[slot] = params.top_p

    def first(self, rows: int) -> "SamplingRows":
        return SamplingRows(self.temperature[:rows], self.top_k[:rows], self.top_p[:rows])


# keep(scores [B, V], params) -> scores, with -inf for codes that top_k and top_p rule out.
Keep = Callable[[Tensor, SamplingRows], Tensor]


def uniforms(seeds: Tensor, frames: Tensor, groups: int) -> Tensor:
    """Return numbers in (0, 1), float64 [B, groups], from seeds [B] and frame indices [B] (both int64).

    Every seed names a SplitMix64 sequence. Its number frame * 2^16 + group belongs to that code.
    """
    place = (frames[:, None] << 16) + torch.arange(groups, device=seeds.device)
    bits = _shift_right(_mix(_mix(seeds)[:, None] + (place + 1) * _GAMMA), 12)
    return (bits.double() + 0.5) * 2.0**-52  # 52 bits, so that the half is exact and 1.0 is never reached


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive and multiply negative logits [B, V] of codes already `seen` [B, V] by `penalty` [B]."""
    factor = penalty[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)


def keep_likely(scores: Tensor, params: SamplingRows) -> Tensor:
    """Mask by top_k and top_p. The host reads the parameters, so as to skip what they do not use."""
    return _keep_top_p(_keep_top_k(scores, params.top_k), params.top_p)


def keep_likely_unseen(scores: Tensor, params: SamplingRows) -> Tensor:
    """Do the same as `keep_likely` by one sort, for a device that the host must not wait for."""
    vocabulary = scores.shape[-1]
    ascending, order = scores.sort(dim=-1, stable=True)
    k = torch.where(params.top_k > 0, params.top_k, vocabulary).clamp(max=vocabulary)
    lowest_kept = ascending.gather(1, vocabulary - k[:, None])
    scores = scores.masked_fill(scores < lowest_kept, -torch.inf)
    ascending = ascending.masked_fill(ascending < lowest_kept, -torch.inf)
    cut = _beyond_top_p(ascending, params.top_p)
    return scores.masked_fill(cut.scatter(1, order, cut), -torch.inf)


def draw(logits: Tensor, params: SamplingRows, uniform: Tensor, keep: Keep = keep_likely) -> Tensor:
    """Draw one code per row, int64 [B], from logits [B, V] float32 and uniform [B]."""
    scores = keep(logits / params.temperature.clamp(min=1e-6)[:, None], params)
    cumulative = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    # The first code whose sum reaches the number. It never has probability 0. Because the number is scaled by the last
    # sum, it is never past the end, whatever the rounding.
    drawn = (cumulative < (uniform * cumulative[:, -1])[:, None]).sum(dim=-1)
    return torch.where(params.temperature > 0, drawn, logits.argmax(dim=-1))


def _keep_top_k(scores: Tensor, top_k: Tensor) -> Tensor:
    """Mask all but the top_k highest of each row (0: keep all). Ties with the lowest kept stay, as in `generate`."""
    vocabulary = scores.shape[-1]
    k = torch.where(top_k > 0, top_k, vocabulary).clamp(max=vocabulary)
    largest = int(k.max())
    if largest == vocabulary and int(k.min()) == vocabulary:
        return scores
    ranked = scores.topk(largest, dim=-1).values
    lowest_kept = ranked.gather(1, k[:, None] - 1)
    return scores.masked_fill(scores < lowest_kept, -torch.inf)


def _keep_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    """Mask the least likely codes whose probabilities add up to at most 1 - top_p. One code always stays."""
    if bool((top_p >= 1).all()):
        return scores
    ascending, order = scores.sort(dim=-1, stable=True)
    cut = _beyond_top_p(ascending, top_p)
    return scores.masked_fill(cut.scatter(1, order, cut), -torch.inf)


def _beyond_top_p(ascending: Tensor, top_p: Tensor) -> Tensor:
    """Return which scores, ascending in each row, are to be masked."""
    cut = ascending.softmax(dim=-1).cumsum(dim=-1) <= (1 - top_p)[:, None]
    cut[:, -1] = False
    return cut & (top_p < 1)[:, None]


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift int64 logically. (torch shifts arithmetically.)"""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
