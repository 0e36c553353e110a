"""Spectral distances between waveforms, at several resolutions."""

import math
from functools import cache

import torch
from torch import Tensor

from qwen_tts.train.clips import RATE_HZ

_RESOLUTIONS = ((2048, 80), (1024, 80), (512, 60), (256, 30), (128, 16))  # FFT size, mel bands
_TOP_HZ = 9500.0
_FLOOR = 2e-3  # added before logarithms: about -54 dB, which is inaudible


@cache
def mel_filters(fft_size: int, bands: int) -> Tensor:
    """Return triangular filters [bands, fft_size // 2 + 1], evenly spaced on the mel scale up to 9.5 kHz."""
    top = 2595.0 * math.log10(1.0 + _TOP_HZ / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)  # [bands + 2]
    bins = torch.linspace(0.0, RATE_HZ / 2, fft_size // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rise, fall).clamp(min=0.0)
    return filters / filters.sum(dim=1, keepdim=True).clamp(min=1.0)


@cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


def magnitudes(samples: Tensor, fft_size: int, hop: int) -> Tensor:
    """Samples [B, S] -> magnitudes [B, fft_size // 2 + 1, 1 + S // hop], a full-scale sine is about sqrt(n) / 4."""
    spectrum = torch.stft(samples, fft_size, hop, window=_window(fft_size), return_complex=True)
    return torch.view_as_real(spectrum).square().sum(-1).add(1e-9).sqrt() / math.sqrt(fft_size)


def log_mel(samples: Tensor, fft_size: int, hop: int, bands: int) -> Tensor:
    """[B, S] -> [B, bands, 1 + S // hop]."""
    return torch.log(mel_filters(fft_size, bands) @ magnitudes(samples, fft_size, hop) + _FLOOR)


def spectral_losses(made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Compare waveforms [B, S]. `mel`: mean L1 between log mels; `contrast`: L1 between magnitudes over their sum."""
    mel = contrast = torch.zeros(())
    for fft_size, bands in _RESOLUTIONS:
        hop = fft_size // 4
        a, b = magnitudes(made, fft_size, hop), magnitudes(wanted, fft_size, hop)
        filters = mel_filters(fft_size, bands)
        mel = mel + (torch.log(filters @ a + _FLOOR) - torch.log(filters @ b + _FLOOR)).abs().mean()
        contrast = contrast + (a - b).abs().sum() / b.sum().clamp(min=1e-3)
    return {"mel": mel / len(_RESOLUTIONS), "contrast": contrast / len(_RESOLUTIONS)}
