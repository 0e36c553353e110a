"""Train the talker, its code predictor and the speaker encoder together."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.config import ModelConfig, TransformerConfig
from qwen_tts.layers import Block
from qwen_tts.models.qwen3_tts import Qwen3TTS
from qwen_tts.models.speaker_encoder import log_mel
from qwen_tts.request import TextLayout
from qwen_tts.train.clips import SOUNDS_PER_FRAME
from qwen_tts.train.initialise import initialise_talker
from qwen_tts.train.talker_batch import NO_LABEL, Corruption, Example, TalkerBatch, collate
from qwen_tts.train.tasks import TaskSource
from qwen_tts.train.training import Figures, Losses, Schedule, Trainee, share, train

# `other_groups` is a mean over many groups. The first few are as audible as group 0, so it weighs more.
_WEIGHTS = {"group_0": 1.0, "other_groups": 2.0, "sounds": 0.5}
_HELD_OUT_CLIPS = 192
_POOL = 12  # batches that are drawn together and sorted by length, to reduce padding
_REFERENCE_FRAMES = (16, 40)  # the length of a reference for the speaker encoder


@dataclass(frozen=True)
class Growth:
    """Short clips come first: at most `frames` frames until step `hold`, then longer ones, from step `end` all.

    In short clips text and speech are close together, so attention to the right place is learned in minutes. A step has
    `clips` of the short clips.
    """

    frames: int
    clips: int
    hold: int
    end: int


@dataclass(frozen=True)
class TalkerStage:
    """A step has `clips` clips (all processes together), of any length after `growth`. Only `predicted_share` of the
    frames train the code predictor, which would otherwise cost more than the talker."""

    clips: int
    schedule: Schedule
    growth: Growth
    dropout: float = 0.1
    predicted_share: float = 0.4
    corruption: Corruption = field(default_factory=Corruption)
    seed: int = 0


class TalkerTrainee(nn.Module):
    """A Base model: talker, code predictor and speaker encoder. The other types lack the speaker encoder.

    Where the data has phones, a head for training only predicts them from the hidden state. It teaches the hidden state
    the position of the speech in the text (as in arXiv:2406.07855).
    """

    def __init__(self, config: ModelConfig, dropout: float, sounds: int = 0, *, in_bfloat16: bool = True) -> None:
        """sounds: the number of phones. in_bfloat16: matrix products are in bfloat16; sums, norms and the weights stay
        float32."""
        super().__init__()
        assert config.speaker_encoder_config is not None, "train as a model of type base"
        self.model = Qwen3TTS(config, matmul_attention)
        self.config = config
        self.speaker_config = config.speaker_encoder_config
        self.dropout = dropout
        self.in_bfloat16 = in_bfloat16
        self.sound_head = nn.Linear(config.talker_config.hidden_size, SOUNDS_PER_FRAME * sounds) if sounds else None
        initialise_talker(self.model.talker)
        for block in self.model.modules():
            if isinstance(block, Block):
                for branch in (block.self_attn, block.mlp):
                    branch.register_forward_hook(self._drop)

    def _drop(self, branch: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return F.dropout(output, self.dropout, self.training)

    def hidden_matrices(self) -> list[str]:
        """Return the names of the matrices inside the layers of both transformers."""
        return [
            f"{at}.{name}"
            for at, block in self.named_modules()
            if isinstance(block, Block)
            for name, parameter in block.named_parameters()
            if parameter.ndim == 2
        ]

    def losses(self, batch: TalkerBatch, predicted: Tensor) -> dict[str, Tensor]:
        """Return mean cross-entropies of `group_0` (with end of speech), `other_groups` and `sounds`, and accuracies.

        predicted [n] selects the frames whose other groups count.
        """
        talker = self.model.talker
        with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bfloat16):
            speakers = self._speakers(batch.references)
            rows = talker.embed_rows(batch.text_ids.flatten(), batch.codec_ids.flatten(), speakers, batch.frames_read)
            rows = F.dropout(rows, self.dropout, self.training).view(*batch.text_ids.shape, -1)
            hidden = _whole_pass(talker.model, rows).flatten(0, 1)  # [B * T, D]
            labels = batch.labels.flatten()
            known = labels != NO_LABEL
            logits = talker.codec_head(hidden[known]).float()
            spoken, spoken_accuracy = self._sound_loss(hidden[batch.predicting_rows], batch.sounds)
            codes = batch.codes[predicted]
            depth = self._predictor_logits(hidden[batch.predicting_rows[predicted]], codes).float()  # [n, G - 1, V]
        others = codes[:, 1:]
        return {
            "group_0": F.cross_entropy(logits, labels[known]),
            "other_groups": F.cross_entropy(depth.flatten(0, 1), others.flatten()),
            "sounds": spoken,
            "sounds_accuracy": spoken_accuracy,
            "group_0_accuracy": (logits.argmax(1) == labels[known]).float().mean(),
            "other_groups_accuracy": (depth.argmax(2) == others).float().mean(),
        }

    def _sound_loss(self, hidden: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [N, D] of the predicting rows, sounds [N, SOUNDS_PER_FRAME] -> cross-entropy, accuracy."""
        known = (sounds != NO_LABEL).all(dim=1)
        if self.sound_head is None or not known.any():
            return torch.zeros(()), torch.zeros(())
        wanted = sounds[known].flatten()
        logits = self.sound_head(hidden[known]).float().view(len(wanted), -1)
        return F.cross_entropy(logits, wanted), (logits.argmax(1) == wanted).float().mean()

    def _speakers(self, references: Sequence[Tensor]) -> Tensor:
        if not references:
            return torch.zeros((0, self.config.talker_config.hidden_size))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            mels = log_mel(torch.stack(list(references)), self.speaker_config)
        embeddings: Tensor = self.model.speaker_encoder(mels)
        return embeddings

    def _predictor_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """hidden [n, D] of the predicting rows, codes [n, G] of the frames -> logits [n, G - 1, V] of groups 1.."""
        predictor = self.model.talker.code_predictor
        inputs = [hidden, self.model.talker.embed_code(codes[:, 0])]
        inputs += [predictor.embed(group, codes[:, group]) for group in range(1, codes.shape[1] - 1)]
        rows = predictor.small_to_mtp_projection(torch.stack([row.float() for row in inputs], dim=1))
        depth = _whole_pass(predictor.model, rows)[:, 1:]
        return torch.stack([head(depth[:, group]) for group, head in enumerate(predictor.lm_head)], dim=1)


def matmul_attention(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """Compute causal attention with plain products. On a CPU the backward pass of the fused kernel is several times
    slower at these lengths (about 150 rows at most, and the few of the code predictor)."""
    keys, values = kv.transpose(2, 3)  # [B, K, T, d] each
    batch, length, heads, width = q.shape
    kv_heads = keys.shape[1]
    grouped = q.transpose(1, 2).reshape(batch, kv_heads, -1, width)  # [B, K, H / K * T, d]
    scores = (grouped @ keys.transpose(2, 3)).view(batch, kv_heads, -1, length, length) / math.sqrt(width)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1).to(values.dtype)
    out = weights.view(batch, kv_heads, -1, length) @ values
    mixed: Tensor = out.view(batch, heads, length, width).transpose(1, 2)
    return mixed


def _whole_pass(transformer: nn.Module, rows: Tensor) -> Tensor:
    """Run all rows [B, T, D] at once, causally -> hidden [B, T, D]. Padding must be at the end."""
    config = transformer.config
    assert isinstance(config, TransformerConfig)
    batch, length = rows.shape[:2]
    positions = torch.arange(length).expand(batch, -1)
    shape = (2, batch, length, config.num_key_value_heads, config.head_dim)
    # One tensor per layer, because for autograd no layer may overwrite the keys of another.
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else rows.dtype
    kv = [torch.zeros(shape, dtype=dtype) for _ in range(config.num_hidden_layers)]
    hidden: Tensor = transformer(rows, positions, kv, None)
    return hidden


def train_talker(trainee: TalkerTrainee, tasks: TaskSource, directory: Path, stage: TalkerStage) -> None:
    """Run the training, or the rest of it."""
    state = Trainee(trainee, stage.schedule, trainee.hidden_matrices())
    state.resume(directory)
    trainee.train()
    batches = _batches(tasks, trainee.config, stage, state.step)

    def losses(step: int) -> Losses:
        batch = next(batches)
        frames = len(batch.codes)
        chosen = np.random.default_rng([stage.seed, step, 1]).choice(
            frames, round(stage.predicted_share * frames), False
        )
        return trainee.losses(batch, torch.from_numpy(chosen))

    def check() -> Figures:
        return {
            f"{name}_{layout}": float(value)
            for layout in ("whole", "streaming")
            for name, value in _held_out(trainee, tasks, stage, layout).items()
        }

    train(state, directory, losses, _WEIGHTS, check, "talker")


def _batches(tasks: TaskSource, config: ModelConfig, stage: TalkerStage, first_step: int) -> Iterator[TalkerBatch]:
    frames = np.array([clip.frames for clip in tasks.clips.clips[:-_HELD_OUT_CLIPS]])
    number_here, processes = share()
    for pool in range(first_step // _POOL, -(-stage.schedule.steps // _POOL)):
        rng = np.random.default_rng([stage.seed, pool])
        longest, clips = _allowed(stage, pool * _POOL, int(frames.max()))
        indices = rng.choice(np.flatnonzero(frames <= longest), size=_POOL * clips)
        examples = sorted((tasks.example(int(i), rng) for i in indices), key=lambda example: example.rows)
        order = rng.permutation(_POOL)
        length = int(rng.integers(*_REFERENCE_FRAMES)) * 1920
        for number, place in enumerate(order):
            if pool * _POOL + number >= first_step:
                picked = examples[place * clips : (place + 1) * clips][number_here::processes]
                yield collate([_cut(e, length, rng) for e in picked], config, stage.corruption, rng)


def _allowed(stage: TalkerStage, step: int, longest: int) -> tuple[int, int]:
    """Return the most frames of a clip at this step, and the number of clips in a batch."""
    growth = stage.growth
    grown = min(1.0, max(0, step - growth.hold) / (growth.end - growth.hold))
    return round(growth.frames + grown * (longest - growth.frames)), round(
        growth.clips + grown * (stage.clips - growth.clips)
    )


def _cut(example: Example, samples: int, rng: np.random.Generator) -> Example:
    """Return the example with a reference of exactly `samples`: a part of it, or repetitions of it."""
    if example.reference is None:
        return example
    start = int(rng.integers(max(1, len(example.reference) - samples + 1)))
    return replace(example, reference=np.resize(example.reference[start:], samples))


def _held_out(trainee: TalkerTrainee, tasks: TaskSource, stage: TalkerStage, layout: TextLayout) -> dict[str, float]:
    """Return the losses on the held-out clips, whose codes are read without corruption."""
    rng = np.random.default_rng(0)
    sums: dict[str, float] = {}
    indices = range(len(tasks.clips) - _HELD_OUT_CLIPS, len(tasks.clips))
    groups = [indices[start : start + stage.clips] for start in range(0, len(indices), stage.clips)]
    for group in groups:
        examples = [_cut(tasks.example(index, rng, layout), 30 * 1920, rng) for index in group]
        batch = collate(examples, trainee.config, None, rng)
        for name, value in trainee.losses(batch, torch.arange(len(batch.codes))).items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(groups)
    return sums
