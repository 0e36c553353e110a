"""Runs the scheduler's plans: which rows of the pools are read, drawn, kept and wiped in a step.

In one step every running row reads its newest frame (decode), the newcomer reads rows of its prompt (prefill; behind
the prompt, a resumed sequence reads the frames that exist already), and
every sequence that has read all its rows gets a frame: group 0 from the talker's logits, groups 1..G-1 from the code
predictor. Rows are slots [0, n), where n is one more than the highest slot in use. Idle rows among them compute on
whatever their slot holds, and nobody reads the result. Paused sequences among them keep their newest frame and their
seen codes.

Letters: D talker width, G code groups, T prompt rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwen_tts.engine.passes import Passes
from qwen_tts.engine.pools import Pools
from qwen_tts.engine.scheduler import Plan
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped
from qwen_tts.models.talker import Talker
from qwen_tts.prompt import REFERENCE_FRAME, SPEAKER_EMBEDDING, PromptLayout
from qwen_tts.recently_used import RecentlyUsed


@dataclass
class _Reading:
    """The newcomer whose rows are being read. `slot` is kept here because a sequence that ends loses its own."""

    sequence: Sequence
    slot: int
    rows: int  # that are in the slot
    overflowed: bool = False  # some of them are not finite


class TalkerRunner:
    """Runs plans with `passes` over `pools`. Only the thread that steps the engine calls it."""

    def __init__(
        self, talker: Talker, pools: Pools, passes: Passes, tts_pad_token_id: int, prefix_cache_bytes: int
    ) -> None:
        self.talker = talker
        self.pools = pools
        self._passes = passes
        self._eos = talker.config.codec_eos_token_id
        self._tts_pad_id = tts_pad_token_id
        with torch.inference_mode():
            self._tts_pad = talker.embed_text(torch.tensor(tts_pad_token_id, device=pools.device))  # [D]
        self._prefixes = RecentlyUsed[Tensor](prefix_cache_bytes)  # [layers, 2, rows, kv_heads, head_dim] each
        self._reading: _Reading | None = None

    def known_rows(self, newcomer: Sequence) -> int:
        """Return the number of its first rows whose keys and values are in the prefix cache. Computes nothing."""
        if newcomer.prefix is None or (kept := self._prefixes.get(newcomer.prefix.content)) is None:
            return 0
        return min(newcomer.prefix.rows, kept.shape[2])  # a text of another length may have left more rows, or fewer

    @torch.inference_mode()
    def run(self, plan: Plan) -> dict[int, Frame | None]:
        """Execute one step. Return the new frame of each slot of the plan, or None at end of speech.

        A slot whose numbers are not finite (float16 ends at 65504) is missing in the result. If this raises, the plan
        or parts of it can be run again: all that was written is written again, or was restored.
        """
        with self._passes.step():
            return self._run(plan)

    @torch.inference_mode()
    def recover(self, sequence: Sequence) -> None:
        """Wipe the slot of a running sequence that has failed. Raises if the engine cannot compute other ones either.

        Its rows must go, because what is not finite would reach the slot's next owner through masked attention.
        """
        slot = _slot(sequence)
        if self._reading is not None and self._reading.sequence is sequence:
            self._reading = None
        self._wipe(slot, sequence.position + 1)
        with self._passes.step(), self.pools.kept(list(range(self.pools.slots))):
            self.pools.hidden[slot] = self._passes.read_prompt(slot, self._tts_pad[None], 0)[-1]
            finite, *_ = self._passes.next_frame(slot + 1, [0] * self.pools.slots)[slot].tolist()
        self._wipe(slot, 1)
        if not finite:
            raise EngineStopped("the model's numbers are not finite, whatever the request")

    def _run(self, plan: Plan) -> dict[int, Frame | None]:
        self._forget_former(plan.newcomer)
        if plan.running:
            self._write_text(plan.running)
            self._decode(plan)
        if plan.newcomer is not None and plan.rows:
            self._prefill(plan.newcomer, plan.rows)
        frames: dict[int, Frame | None] = {}
        if plan.sequences:
            with self.pools.kept([_slot(sequence) for sequence in plan.paused]):
                drawn = self._draw(plan.sequences).tolist()
            for sequence in plan.sequences:
                finite, *codes = drawn[slot := _slot(sequence)]
                if finite:
                    frames[slot] = None if codes[0] == self._eos else tuple(codes)
        if self._reading is not None:  # booked last, so that a step that raises can be repeated
            self._reading.rows = plan.rows.stop
        if plan.newcomer in plan.sequences:
            self._reading = None
        return frames

    def _forget_former(self, newcomer: Sequence | None) -> None:
        """Forget a newcomer that ended before its prompt did, if another one or none is there now."""
        reading = self._reading
        if reading is None or reading.sequence is newcomer:
            return
        if reading.overflowed:
            self._wipe(reading.slot, reading.rows + 1)  # as an idle row it wrote one more
        self._reading = None

    def _meet(self, newcomer: Sequence) -> _Reading:
        """Prepare the slot of a newcomer of which nothing has been read."""
        slot, rows = _slot(newcomer), newcomer.rows_reused
        if rows:
            assert newcomer.prefix is not None, "rows reused without a prefix"
            kept = self._prefixes.get(newcomer.prefix.content)
            assert kept is not None, "a prefix that the scheduler found was dropped before it was copied"
            assert kept.shape[2] >= rows, f"{rows} rows reused of {kept.shape[2]}"
            self.pools.kv[:, :, slot, :rows] = kept[:, :, :rows]
        return _Reading(newcomer, slot, rows)

    def _prefill(self, sequence: Sequence, read: range) -> None:
        """Read these rows of the prompt into the sequence's slot. With the last, set the slot's row of every pool."""
        if self._reading is None:
            self._reading = self._meet(sequence)
        slot, layout, reading = _slot(sequence), sequence.layout, self._reading
        assert reading.sequence is sequence, "two newcomers at a time"
        assert reading.slot == slot, f"the newcomer moved from slot {reading.slot} to {slot}"
        assert reading.rows == read.start, f"rows from {read.start} on, after {reading.rows} rows"
        in_prompt = read.start < len(layout)  # no piece has rows of the prompt and of frames
        embedded = self._embed(layout, read) if in_prompt else self._embed_frames(sequence, read)
        hidden = self._passes.read_prompt(slot, embedded, read.start)
        if not bool(hidden.isfinite().all()):
            reading.overflowed = True
        if (prefix := sequence.prefix) is not None and read.stop == prefix.rows and not reading.overflowed:
            kept = self.pools.kv[:, :, slot, : prefix.rows].clone()
            self._prefixes.put(prefix.content, kept, kept.nbytes)
            assert self._prefixes.used <= self._prefixes.limit, "the prefix cache is over its limit"
        if read.stop == sequence.prefill_rows:
            self.pools.hidden[slot] = torch.nan if reading.overflowed else hidden[-1]
            self._set_up(slot, sequence)

    def _set_up(self, slot: int, sequence: Sequence) -> None:
        """Set the slot's row of the pools that decode steps read."""
        pools, layout, request = self.pools, sequence.layout, sequence.request
        trailing = len(layout.trailing_text_ids)
        if trailing:
            ids = torch.from_numpy(layout.trailing_text_ids).to(pools.device)
            pools.trailing_text[slot, :trailing] = self.talker.embed_text(ids)
        pools.trailing_text[slot, trailing] = self._tts_pad
        pools.seen[slot] = False
        pools.seen[slot, [frame[0] for frame in sequence.frames]] = True
        pools.seeds[slot] = request.seed
        pools.repetition_penalty[slot] = request.repetition_penalty
        pools.sampling.set(slot, request.sampling)
        pools.predictor_sampling.set(slot, request.predictor_sampling)

    def _embed(self, layout: PromptLayout, read: range) -> Tensor:
        """Return the embeddings of these rows of the prompt, [T, D]."""
        config, device = self.talker.config, self.pools.device
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
            torch.tensor(layout.text_ids[read.start : read.stop], device=device),
            torch.tensor(codec_ids, device=device),
            torch.tensor(speakers, device=device),
            torch.tensor(frames, device=device),
        )

    def _embed_frames(self, sequence: Sequence, read: range) -> Tensor:
        """Return the embeddings of frames that exist already, with the text beside them, [T, D]. `read` counts the
        prompt's rows too."""
        device, before = self.pools.device, len(sequence.layout)
        numbers = range(read.start - before, read.stop - before)
        text_ids = [sequence.text_id(number) for number in numbers]
        assert sequence.text is None or None not in text_ids, "the text beside a frame that exists is certain"
        ids = [self._tts_pad_id if text_id is None else text_id for text_id in text_ids]
        frames = torch.tensor([sequence.frames[number] for number in numbers], device=device)
        return self.talker.embed_frame(frames) + self.talker.embed_text(torch.tensor(ids, device=device))

    def _wipe(self, slot: int, rows: int) -> None:
        """Zero what the slot's owner wrote: its first `rows` rows of the cache, and what frames are drawn from."""
        self.pools.kv[:, :, slot, :rows] = 0
        self.pools.predictor_kv[:, :, slot] = 0
        self.pools.hidden[slot] = 0

    def _write_text(self, running: tuple[Sequence, ...]) -> None:
        """Write the row of each live text that this step reads."""
        live = [sequence for sequence in running if sequence.text is not None]
        if not live:
            return
        ids = torch.tensor([sequence.next_text_id for sequence in live], device=self.pools.device)
        slots, rows = [_slot(sequence) for sequence in live], [sequence.text_row for sequence in live]
        self.pools.trailing_text[slots, rows] = self.talker.embed_text(ids)

    def _decode(self, plan: Plan) -> None:
        """Read the newest frame of every running row into its cache."""
        positions, steps = [0] * self.pools.slots, [0] * self.pools.slots
        if plan.newcomer is not None:
            # What an idle row writes there, the newcomer's next prompt row replaces.
            positions[_slot(plan.newcomer)] = plan.rows.start
        for sequence in plan.paused:
            positions[_slot(sequence)] = sequence.position  # what its row writes there, its next frame replaces
        for sequence in plan.running:
            slot = _slot(sequence)
            assert sequence.position < self.pools.positions, f"{sequence.position} rows and no room for one more"
            positions[slot] = sequence.position
            steps[slot] = sequence.text_row
        self._passes.decode(plan.height, positions, steps)

    def _draw(self, sequences: tuple[Sequence, ...]) -> Tensor:
        """Draw a frame for every row from its hidden state; return [B, 1 + G] int64 as `next_frame` does."""
        frames = [0] * self.pools.slots
        for sequence in sequences:
            frames[_slot(sequence)] = len(sequence.frames)
        return self._passes.next_frame(_rows(sequences), frames)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None, "a sequence of the plan has no slot"
    return sequence.slot


def _rows(sequences: tuple[Sequence, ...]) -> int:
    return max(_slot(sequence) for sequence in sequences) + 1
