"""The encoder that is used while a codec is trained: it reads a mel spectrogram, and no checkpoint contains it.

From the spectrogram the codes are learned within minutes. The checkpoint's encoder, which reads the waveform and has to
find its filters first, would need hours on a CPU. It learns afterwards to produce the same latents.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.train.clips import SAMPLES_PER_FRAME
from qwen_tts.train.spectral import log_mel

_FFT, _HOP, _BANDS = 1024, 240, 80
_MELS_PER_FRAME = SAMPLES_PER_FRAME // _HOP
_MEAN, _SCALE = -4.0, 2.0  # approximate mean and deviation of the log mels of speech
_WIDTH, _BLOCKS, _KERNEL = 384, 3, 3


class MelEncoder(nn.Module):
    """Causal except for half a window less a hop (11 ms), so that the checkpoint's causal encoder can imitate it."""

    def __init__(self, width: int) -> None:
        """width: the width of the vectors that the codebooks quantise."""
        super().__init__()
        self.enter = nn.Linear(_MELS_PER_FRAME * _BANDS, _WIDTH)
        self.blocks = nn.Sequential(*(_Block() for _ in range(_BLOCKS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.semantic = nn.Linear(_WIDTH, width)
        self.acoustic = nn.Linear(_WIDTH, width)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples [B, S], S whole frames -> the input of semantic and acoustic codebooks, [B, width, F] each."""
        mels = log_mel(samples, _FFT, _HOP, _BANDS)[:, :, :-1].transpose(1, 2)
        frames = ((mels - _MEAN) / _SCALE).reshape(len(samples), -1, _MELS_PER_FRAME * _BANDS)
        hidden = self.norm(self.blocks(self.enter(frames)))
        return self.semantic(hidden).transpose(1, 2), self.acoustic(hidden).transpose(1, 2)


class _Block(nn.Module):
    """A residual block over the current frame and the two before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.conv = nn.Conv1d(_WIDTH, _WIDTH, _KERNEL)
        self.leave = nn.Linear(_WIDTH, _WIDTH)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        past = F.pad(self.norm(x).transpose(1, 2), (_KERNEL - 1, 0))
        mixed: Tensor = self.leave(F.gelu(self.conv(past)).transpose(1, 2))
        return x + mixed
