"""Models that judge speech: speaker similarity and naturalness."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from qwen_tts.evaluation import RATE_HZ

_JUDGE_HZ = 16000


class VoiceJudge:
    """Resemblyzer's speaker embeddings (arXiv:1710.10467). The cosine is about 0.9 for one person, 0.6 for two."""

    def __init__(self) -> None:
        from resemblyzer import VoiceEncoder

        self._encoder = VoiceEncoder("cpu", verbose=False)

    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """samples [S] at 24 kHz -> unit vector [256]."""
        from resemblyzer import preprocess_wav

        embedding: NDArray[np.float32] = self._encoder.embed_utterance(
            preprocess_wav(soxr.resample(samples, RATE_HZ, _JUDGE_HZ))
        )
        return embedding


class MosJudge:
    """DistillMOS (arXiv:2502.05356): predicted mean opinion score, 1 to 5."""

    def __init__(self) -> None:
        distillmos = _without_torchaudio()
        self._model = distillmos.ConvTransformerSQAModel()
        self._model.eval()

    def score(self, samples: NDArray[np.float32]) -> float:
        """samples [S] at 24 kHz."""
        with torch.inference_mode():
            resampled = torch.from_numpy(soxr.resample(samples, RATE_HZ, _JUDGE_HZ)).float()
            return float(self._model(resampled[None]))


def _without_torchaudio() -> ModuleType:
    """Import the package distillmos with an empty module in place of torchaudio.

    torchaudio must match the build of torch exactly, and only the command line of distillmos uses it.
    """
    empty = ModuleType("torchaudio")
    empty.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = empty
    try:
        return importlib.import_module("distillmos")
    finally:
        del sys.modules["torchaudio"]
