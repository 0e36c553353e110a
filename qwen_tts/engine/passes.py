"""The passes over a talker that make frames: one interface, and its plain implementation in torch.

`PlainPasses` runs everywhere and is what the others are tested against. `NativePasses` (cpu.py) computes the layers
with compiled code on a CPU. `GraphPasses` (gpu.py) replays CUDA graphs. choose_passes.py picks one; an engine's runner
gets it in its constructor.

Letters: B rows, D talker width, G code groups, L cache positions, T prompt rows, V vocabulary.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from qwen_tts.config import SPECIAL_CODES
from qwen_tts.engine.pools import Pools
from qwen_tts.engine.sampling import Keep, draw, keep_likely, penalise_repetition, uniforms
from qwen_tts.layers import Read
from qwen_tts.models.talker import Talker
from qwen_tts.request import MIN_FRAMES


class Passes(Protocol):
    """Passes over one talker and the pools of one engine, all called by the thread that steps the engine.

    `decode` and `next_frame` compute slots [0, rows). Their lists have an entry for every slot.
    """

    def step(self) -> AbstractContextManager[None]:
        """Return a context in which all work of one step is done."""

    def read_prompt(self, slot: int, rows: Tensor, first: int) -> Tensor:
        """Read prompt rows [T, D] into the slot's cache at positions first, first + 1, ...; return hidden [T, D]."""

    def decode(self, rows: int, positions: list[int], steps: list[int]) -> None:
        """Read the newest frame and row `steps` of the trailing text into the cache at `positions`; set `hidden`."""

    def next_frame(self, rows: int, frames: list[int]) -> Tensor:
        """Draw frames number `frames` from `hidden`; return [B, 1 + G] int64 as `PlainPasses.book` does."""


MakePasses = Callable[[Talker, Pools], Passes]


class PlainPasses:
    """The passes in plain torch, launched operation by operation."""

    def __init__(
        self, talker: Talker, pools: Pools, read_talker: Read | None = None, read_predictor: Read | None = None
    ) -> None:
        """read_talker, read_predictor: what computes the layers of the two transformers, if not they themselves."""
        self.talker = talker
        self.pools = pools
        self.groups = talker.config.num_code_groups
        self._read_talker: Read = talker.model if read_talker is None else read_talker
        self._read_predictor: Read = talker.code_predictor.model if read_predictor is None else read_predictor
        self._eos = talker.config.codec_eos_token_id
        vocabulary = talker.config.vocab_size
        suppressed = torch.arange(vocabulary, device=pools.device) >= vocabulary - SPECIAL_CODES
        suppressed[self._eos] = False
        self._suppressed = suppressed  # [V]

    def step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read_prompt(self, slot: int, rows: Tensor, first: int) -> Tensor:
        last = first + len(rows)
        positions = torch.arange(first, last, device=self.pools.device)[None]
        visible = None
        if first:
            visible = (torch.arange(last, device=self.pools.device) <= positions[..., None])[:, None]
        return self._read_talker(rows[None], positions, self.pools.kv[:, :, slot : slot + 1, :last], visible)[0]

    def decode(self, rows: int, positions: list[int], steps: list[int]) -> None:
        at, step = torch.tensor([positions[:rows], steps[:rows]], device=self.pools.device)
        places = torch.arange(max(positions[:rows]) + 1, device=self.pools.device)
        self.pools.hidden[:rows] = self.read_frames(at, step, places)

    def next_frame(self, rows: int, frames: list[int]) -> Tensor:
        frame = torch.tensor(frames[:rows], device=self.pools.device)
        uniform = uniforms(self.pools.seeds[:rows], frame, self.groups)
        return self.book(self.draw_frames(frame, uniform, keep_likely))

    def read_frames(self, at: Tensor, steps: Tensor, places: Tensor) -> Tensor:
        """Read the newest frame of row b and row steps[b] of its text into its cache at at[b]; return hidden [B, D].

        at and steps [B], places [L] = 0, 1, ... L - 1. Writes only the cache.
        """
        rows, length = at.shape[0], places.shape[0]
        text = self.pools.trailing_text[torch.arange(rows, device=self.pools.device), steps]
        inputs = self.talker.embed_frame(self.pools.codes[:rows]) + text  # [B, D]
        visible = places <= at[:, None]  # [B, L]
        kv = self.pools.kv[:, :, :rows, :length]
        hidden: Tensor = self._read_talker(inputs[:, None], at[:, None], kv, visible[:, None, None])
        return hidden[:, 0]

    def draw_frames(self, frame: Tensor, uniform: Tensor, keep: Keep) -> Tensor:
        """Return codes [B, G] int64 of frames `frame` [B], drawn from the hidden states with `uniform` [B, G].

        Writes only the code predictor's cache.
        """
        rows, predictor = frame.shape[0], self.talker.code_predictor
        params, hidden = self.pools.predictor_sampling.first(rows), self.pools.hidden[:rows]
        kv = self.pools.predictor_kv[:, :, :rows]
        codes = [self._first_group(frame, uniform[:, 0], keep)]
        inputs = torch.stack((hidden, self.talker.embed_code(codes[0])), dim=1)  # [B, 2, D]
        position = 0
        for group in range(1, self.groups):
            logits = predictor.logits(group, inputs, position, kv, self._read_predictor).float()
            position += inputs.shape[1]
            codes.append(draw(logits, params, uniform[:, group], keep))
            inputs = predictor.embed(group, codes[-1])[:, None]
        return torch.stack(codes, dim=1)

    def _first_group(self, frame: Tensor, uniform: Tensor, keep: Keep) -> Tensor:
        rows, pools = frame.shape[0], self.pools
        logits = self.talker.codec_head(pools.hidden[:rows]).float()  # [B, V]
        logits = penalise_repetition(logits, pools.seen[:rows], pools.repetition_penalty[:rows])
        logits = logits.masked_fill(self._suppressed, -torch.inf)
        logits[:, self._eos] = logits[:, self._eos].masked_fill(frame < MIN_FRAMES, -torch.inf)
        return draw(logits, pools.sampling.first(rows), uniform, keep)

    def book(self, codes: Tensor) -> Tensor:
        """Make codes [B, G] the newest frames. Return them after a column that says whether `hidden` is finite."""
        rows = codes.shape[0]
        self.pools.codes[:rows] = codes
        self.pools.seen[:rows].scatter_(1, codes[:, :1], True)
        return torch.cat((self.pools.hidden[:rows].isfinite().all(dim=1, keepdim=True), codes), dim=1)
