"""The tensors of the engine: pools with one row per slot, and the passes over them.

One step: every running row reads its newest frame (decode), the newcomer reads rows of its prompt (prefill), and those
that have read all get a frame: group 0 from the talker's logits, groups 1..G-1 from the code predictor. Rows are slots
[0, n), n being one more than the highest slot in use; idle rows among them compute on whatever their slot holds and are
not read. A paused sequence among them finds its newest frame, and what it has said, as they were.

Letters: B rows, D talker width, G code groups, L cache positions, T prompt rows, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from qwen_tts.config import SPECIAL_CODES
from qwen_tts.engine.kv_cache import allocate_kv_cache, allocate_pool
from qwen_tts.engine.sampling import Keep, SamplingRows, draw, keep_likely, penalise_repetition, uniforms
from qwen_tts.engine.scheduler import Plan
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.models.talker import Talker
from qwen_tts.prompt import REFERENCE_FRAME, SPEAKER_EMBEDDING, PromptLayout
from qwen_tts.recently_used import RecentlyUsed
from qwen_tts.request import MIN_FRAMES


class TalkerRunner:
    """Runs plans on a talker. `positions` bounds prompt rows plus frames of one sequence."""

    def __init__(
        self, talker: Talker, slots: int, positions: int, tts_pad_token_id: int, prefix_cache_bytes: int
    ) -> None:
        config, predictor = talker.config, talker.config.code_predictor_config
        weight = talker.model.codec_embedding.weight
        device, dtype = weight.device, weight.dtype
        self.talker = talker
        self.slots = slots
        self.positions = positions
        self.device = device
        self.groups = config.num_code_groups
        self.eos = config.codec_eos_token_id
        with torch.inference_mode():
            self.tts_pad = talker.embed_text(torch.tensor(tts_pad_token_id, device=device))  # [D]
        self.kv = allocate_kv_cache(config, slots, positions, device, dtype)
        self.predictor_kv = allocate_kv_cache(predictor, slots, self.groups, device, dtype)
        self.hidden = torch.zeros((slots, config.hidden_size), device=device, dtype=dtype)
        self.codes = torch.zeros((slots, self.groups), device=device, dtype=torch.int64)  # the newest frame
        # Row n is added to the input of decode step n; a sequence's last row is tts_pad, used for ever after.
        self.trailing_text = allocate_pool((slots, positions, config.hidden_size), device, dtype)
        self.seen = torch.zeros((slots, config.vocab_size), device=device, dtype=torch.bool)
        self.seeds = torch.zeros(slots, device=device, dtype=torch.int64)
        self.repetition_penalty = torch.ones(slots, device=device)
        self.sampling = SamplingRows.allocate(slots, device)
        self.predictor_sampling = SamplingRows.allocate(slots, device)
        suppressed = torch.arange(config.vocab_size, device=device) >= config.vocab_size - SPECIAL_CODES
        suppressed[self.eos] = False
        self.suppressed = suppressed  # [V]
        self._overflowed: set[int] = set()  # slots whose prompt gave numbers that are not finite
        # The passes over all running rows; a faster way may take their places.
        self.decode: Callable[[int, list[int], list[int]], None] = self._decode_rows
        self.next_frame: Callable[[int, list[int]], Tensor] = self._next_frame_rows
        self._prefixes = RecentlyUsed[Tensor](prefix_cache_bytes)  # [layers, 2, rows, kv_heads, head_dim] each

    @torch.inference_mode()
    def begin(self, newcomer: Sequence) -> int:
        """Make its slot ready, with the prefix of its prompt if that is known; returns the rows that are there now."""
        slot, prefix = _slot(newcomer), newcomer.prefix
        if slot in self._overflowed:  # its last owner left before the end of the prompt
            self._wipe(slot)
        if prefix is None or (kept := self._prefixes.get(prefix.content)) is None:
            return 0
        rows = min(prefix.rows, kept.shape[2])  # texts of other lengths may have left more, or less
        self.kv[:, :, slot, :rows] = kept[:, :, :rows]
        return rows

    @torch.inference_mode()
    def run(self, plan: Plan) -> dict[int, Frame | None]:
        """Execute one step; per slot of the plan its new frame, or None at end of speech.

        A slot whose numbers overflowed (float16 ends at 65504) has neither, and its cache is wiped: what is not
        finite would reach the slot's next owner through masked attention.
        """
        with self._one_team_of_threads():
            return self._run(plan)

    def _run(self, plan: Plan) -> dict[int, Frame | None]:
        if plan.running:
            self._write_text(plan.running)
            self._decode(plan)
        if plan.newcomer is not None and plan.rows:
            self._prefill(plan.newcomer, plan.rows)
        if not plan.sequences:
            return {}
        with self._kept(plan.paused):
            drawn = self._draw(plan.sequences).tolist()
        frames: dict[int, Frame | None] = {}
        for slot in map(_slot, plan.sequences):
            finite, *codes = drawn[slot]
            if finite:
                frames[slot] = None if codes[0] == self.eos else tuple(codes)
            else:
                self._wipe(slot)
        return frames

    @contextmanager
    def _one_team_of_threads(self) -> Iterator[None]:
        """A transformer that brings its own threads finds torch's in their way: they wait actively for their next work,
        longer than a step takes. What remains for torch is too small to divide."""
        if self.talker.model.read is None:
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _prefill(self, sequence: Sequence, read: range) -> None:
        """Read these rows of the prompt into the sequence's slot; with the last, set the slot's row of every pool."""
        slot, layout, request = _slot(sequence), sequence.layout, sequence.request
        rows = self._embed(layout, read)
        positions = torch.arange(read.start, read.stop, device=self.device)[None]
        visible = None
        if read.start:
            visible = (torch.arange(read.stop, device=self.device) <= positions[..., None])[:, None]
        hidden = self.talker.model(rows[None], positions, self.kv[:, :, slot : slot + 1, : read.stop], visible)
        if not bool(hidden.isfinite().all()):
            self._overflowed.add(slot)
        if (prefix := sequence.prefix) is not None and read.stop == prefix.rows and slot not in self._overflowed:
            kept = self.kv[:, :, slot, : prefix.rows].clone()
            self._prefixes.put(prefix.content, kept, kept.nbytes)
        if read.stop < len(layout):
            return
        self.hidden[slot] = torch.nan if slot in self._overflowed else hidden[0, -1]
        trailing = len(layout.trailing_text_ids)
        if trailing:
            ids = torch.from_numpy(layout.trailing_text_ids).to(self.device)
            self.trailing_text[slot, :trailing] = self.talker.embed_text(ids)
        self.trailing_text[slot, trailing] = self.tts_pad
        self.seen[slot] = False
        self.seeds[slot] = request.seed
        self.repetition_penalty[slot] = request.repetition_penalty
        self.sampling.set(slot, request.sampling)
        self.predictor_sampling.set(slot, request.predictor_sampling)

    def _embed(self, layout: PromptLayout, read: range) -> Tensor:
        """These rows of the prompt, [T, D]."""
        config = self.talker.config
        speakers = np.zeros((0, config.hidden_size), np.float32)
        frames = np.zeros((0, config.num_code_groups), np.int64)
        codec_ids = layout.codec_ids[read.start : read.stop]
        if (prompt := layout.voice_prompt) is not None:
            if (codec_ids == SPEAKER_EMBEDDING).any():
                speakers = prompt.speaker_embedding[None]
            if prompt.ref_codes is not None:
                first = np.count_nonzero(layout.codec_ids[: read.start] == REFERENCE_FRAME)
                count = np.count_nonzero(codec_ids == REFERENCE_FRAME)
                frames = prompt.ref_codes[first : first + count].astype(np.int64)
        # Copied: arrays that come from another process may be read-only, which torch cannot express.
        return self.talker.embed_rows(
            torch.tensor(layout.text_ids[read.start : read.stop], device=self.device),
            torch.tensor(codec_ids, device=self.device),
            torch.tensor(speakers, device=self.device),
            torch.tensor(frames, device=self.device),
        )

    def _wipe(self, slot: int) -> None:
        for kv in (self.kv, self.predictor_kv):
            kv[:, :, slot] = 0
        self.hidden[slot] = 0
        self._overflowed.discard(slot)

    @contextmanager
    def _kept(self, paused: tuple[Sequence, ...]) -> Iterator[None]:
        """What these have said outlives a step that computes on their rows."""
        if not paused:
            yield
            return
        slots = [_slot(sequence) for sequence in paused]
        newest, seen = self.codes[slots], self.seen[slots]  # copies
        yield
        self.codes[slots], self.seen[slots] = newest, seen

    def _write_text(self, running: tuple[Sequence, ...]) -> None:
        """Of live texts, the row that this step reads."""
        live = [sequence for sequence in running if sequence.text is not None]
        if not live:
            return
        ids = torch.tensor([sequence.next_text_id for sequence in live], device=self.device)
        slots, rows = [_slot(sequence) for sequence in live], [sequence.text_row for sequence in live]
        self.trailing_text[slots, rows] = self.talker.embed_text(ids)

    def _decode(self, plan: Plan) -> None:
        """Read the newest frame of every running row into its cache."""
        positions, steps = [0] * self.slots, [0] * self.slots
        if plan.newcomer is not None:
            # What an idle row writes there, the newcomer's next prompt row replaces.
            positions[_slot(plan.newcomer)] = plan.rows.start
        for sequence in plan.paused:
            positions[_slot(sequence)] = sequence.position  # what its row writes there, its next frame replaces
        for sequence in plan.running:
            slot = _slot(sequence)
            positions[slot] = sequence.position
            steps[slot] = sequence.text_row
        self.decode(plan.height, positions, steps)

    def _draw(self, sequences: tuple[Sequence, ...]) -> Tensor:
        """Draw a frame for every row from its hidden state, [B, 1 + G] int64 as `book` returns them."""
        frames = [0] * self.slots
        for sequence in sequences:
            frames[_slot(sequence)] = len(sequence.frames)
        return self.next_frame(_rows(sequences), frames)

    def _decode_rows(self, rows: int, positions: list[int], steps: list[int]) -> None:
        """Every slot has a position and a step; `rows` of them are computed."""
        at, step = torch.tensor([positions[:rows], steps[:rows]], device=self.device)
        places = torch.arange(max(positions[:rows]) + 1, device=self.device)
        self.hidden[:rows] = self.read_frames(at, step, places)

    def _next_frame_rows(self, rows: int, frames: list[int]) -> Tensor:
        """Every slot has the number of its next frame; `rows` of them are computed."""
        frame = torch.tensor(frames[:rows], device=self.device)
        uniform = uniforms(self.seeds[:rows], frame, self.groups)
        return self.book(self.draw_frames(frame, uniform, keep_likely))

    def read_frames(self, at: Tensor, steps: Tensor, places: Tensor) -> Tensor:
        """Read the newest frame of row b and row steps[b] of its text into its cache at at[b]; hidden [B, D].

        at and steps [B], places [L] = 0, 1, ... L - 1. Writes the cache alone.
        """
        rows, length = at.shape[0], places.shape[0]
        text = self.trailing_text[torch.arange(rows, device=self.device), steps]
        inputs = self.talker.embed_frame(self.codes[:rows]) + text  # [B, D]
        visible = places <= at[:, None]  # [B, L]
        kv = self.kv[:, :, :rows, :length]
        hidden: Tensor = self.talker.model(inputs[:, None], at[:, None], kv, visible[:, None, None])
        return hidden[:, 0]

    def draw_frames(self, frame: Tensor, uniform: Tensor, keep: Keep) -> Tensor:
        """Codes [B, G] int64 of frames `frame` [B], drawn from the hidden states with `uniform` [B, G].

        Writes the code predictor's cache alone.
        """
        rows, predictor = frame.shape[0], self.talker.code_predictor
        params, hidden = self.predictor_sampling.first(rows), self.hidden[:rows]
        kv = self.predictor_kv[:, :, :rows]
        codes = [self._first_group(frame, uniform[:, 0], keep)]
        inputs = torch.stack((hidden, self.talker.embed_code(codes[0])), dim=1)  # [B, 2, D]
        position = 0
        for group in range(1, self.groups):
            logits = predictor.logits(group, inputs, position, kv).float()
            position += inputs.shape[1]
            codes.append(draw(logits, params, uniform[:, group], keep))
            inputs = predictor.embed(group, codes[-1])[:, None]
        return torch.stack(codes, dim=1)

    def _first_group(self, frame: Tensor, uniform: Tensor, keep: Keep) -> Tensor:
        rows = frame.shape[0]
        logits = self.talker.codec_head(self.hidden[:rows]).float()  # [B, V]
        logits = penalise_repetition(logits, self.seen[:rows], self.repetition_penalty[:rows])
        logits = logits.masked_fill(self.suppressed, -torch.inf)
        logits[:, self.eos] = logits[:, self.eos].masked_fill(frame < MIN_FRAMES, -torch.inf)
        return draw(logits, self.sampling.first(rows), uniform, keep)

    def book(self, codes: Tensor) -> Tensor:
        """Make codes [B, G] the newest frames; with, before them, whether the numbers they came from were finite."""
        rows = codes.shape[0]
        self.codes[:rows] = codes
        self.seen[:rows].scatter_(1, codes[:, :1], True)
        return torch.cat((self.hidden[:rows].isfinite().all(dim=1, keepdim=True), codes), dim=1)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot


def _rows(sequences: tuple[Sequence, ...]) -> int:
    return max(_slot(sequence) for sequence in sequences) + 1
