"""Examples for the talker: a prompt, as prompt.py lays it out, and the frames of its answer.

    rows     prompt row 0 … prompt's last row | frame 0 … frame F-1
    label                       c0 of frame 0 | c0 of frame 1 … end of speech

The row whose label is group 0 of frame t is the predicting row of frame t: from its hidden state the code predictor
predicts the other groups of frame t. (The reference's fine-tuning shifts its labels once more in the loss; see
docs/decisions.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_tts.config import ModelConfig
from qwen_tts.prompt import NO_CODEC, REFERENCE_FRAME, PromptLayout
from qwen_tts.train.clips import SOUNDS_PER_FRAME

NO_LABEL = -100


@dataclass(frozen=True, eq=False)
class Example:
    """`codes` [F, G] answer the prompt. The speaker embedding is computed from the recording `reference` [S].
    `sounds` [F, SOUNDS_PER_FRAME] numbers the phones, where they are known."""

    layout: PromptLayout
    codes: NDArray[np.int64]
    reference: NDArray[np.float32] | None = None
    sounds: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        return len(self.layout) + len(self.codes)


@dataclass(frozen=True)
class Corruption:
    """Errors in the codes that the talker reads, as it will make at inference. In `share` of the examples each code is
    replaced with a probability up to `codes`, and all codes of a frame are replaced with one up to `frames`."""

    share: float = 0.8
    codes: float = 0.2
    frames: float = 0.1


@dataclass(frozen=True, eq=False)
class TalkerBatch:
    """B examples, padded to T rows, with N frames in total. R rows read a frame, those of references included."""

    text_ids: Tensor  # [B, T] int64
    codec_ids: Tensor  # [B, T] int64: ids, or the values of prompt.py in their place
    frames_read: Tensor  # [R, G] int64, corrupted
    references: list[Tensor]  # samples [S] per SPEAKER_EMBEDDING row, in row order
    labels: Tensor  # [B, T] int64
    predicting_rows: Tensor  # [N] int64, into [B * T]: the row whose label is this frame's group 0
    codes: Tensor  # [N, G] int64
    sounds: Tensor  # [N, SOUNDS_PER_FRAME] int64, or NO_LABEL


def collate(
    examples: Sequence[Example], config: ModelConfig, corruption: Corruption | None, rng: np.random.Generator
) -> TalkerBatch:
    shape = (len(examples), max(example.rows for example in examples))
    text_ids = np.full(shape, config.tts_pad_token_id, np.int64)
    codec_ids = np.full(shape, NO_CODEC, np.int64)
    labels = np.full(shape, NO_LABEL, np.int64)
    read, predicting, sounds = [], [], []
    codebook = config.talker_config.code_predictor_config.vocab_size
    for row, example in enumerate(examples):
        layout, codes = example.layout, example.codes
        prompt, end = len(layout), example.rows
        text_ids[row, :prompt] = layout.text_ids
        trailing = layout.trailing_text_ids[: len(codes)]
        text_ids[row, prompt : prompt + len(trailing)] = trailing
        codec_ids[row, :prompt] = layout.codec_ids
        codec_ids[row, prompt:end] = REFERENCE_FRAME
        labels[row, prompt - 1 : end - 1] = codes[:, 0]
        labels[row, end - 1] = config.talker_config.codec_eos_token_id
        if layout.voice_prompt is not None and layout.voice_prompt.ref_codes is not None:
            read.append(layout.voice_prompt.ref_codes.astype(np.int64))
        read.append(codes if corruption is None else _corrupt(codes, codebook, corruption, rng))
        unknown = np.full((len(codes), SOUNDS_PER_FRAME), NO_LABEL)
        sounds.append(unknown if example.sounds is None else example.sounds)
        predicting.append(row * shape[1] + np.arange(prompt - 1, end - 1))
    return TalkerBatch(
        text_ids=torch.from_numpy(text_ids),
        codec_ids=torch.from_numpy(codec_ids),
        frames_read=torch.from_numpy(np.concatenate(read)),
        references=[torch.from_numpy(e.reference) for e in examples if e.reference is not None],
        labels=torch.from_numpy(labels),
        predicting_rows=torch.from_numpy(np.concatenate(predicting)),
        codes=torch.from_numpy(np.concatenate([example.codes for example in examples])),
        sounds=torch.from_numpy(np.concatenate(sounds)),
    )


def _corrupt(
    codes: NDArray[np.int64], codebook: int, corruption: Corruption, rng: np.random.Generator
) -> NDArray[np.int64]:
    if rng.random() >= corruption.share:
        return codes
    wrong = rng.random(codes.shape) < rng.uniform(0, corruption.codes)
    wrong |= rng.random((len(codes), 1)) < rng.uniform(0, corruption.frames)
    return np.where(wrong, rng.integers(codebook, size=codes.shape), codes)
