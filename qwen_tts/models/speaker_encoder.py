"""ECAPA-TDNN speaker encoder (arXiv:2005.07143): log-mel -> speaker embedding. Parameter names are the checkpoint's."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from qwen_tts.checkpoint import WEIGHTS_FILE, load_weights
from qwen_tts.config import SpeakerEncoderConfig

SPEAKER_ENCODER_PREFIX = "speaker_encoder."

# The mel front end is in no config. These are the constants at the only call in the reference implementation.
_FFT, _HOP, _HIGHEST_HZ = 1024, 256, 12000.0
_LEAST_POWER, _LEAST_MEL = 1e-9, 1e-5


def log_mel(samples: Tensor, config: SpeakerEncoderConfig) -> Tensor:
    """Turn samples [B, S] at config.sample_rate into log-mel frames [B, T, mel_dim], one per 256 samples.

    The samples are reflect-padded so that T = S // 256. Magnitudes pass a Slaney-normalised filterbank, then the
    natural log.
    """
    edge = (_FFT - _HOP) // 2
    padded = F.pad(samples[:, None], (edge, edge), mode="reflect")[:, 0]
    window = torch.hann_window(_FFT, device=samples.device)
    spectrum = torch.stft(padded, _FFT, hop_length=_HOP, window=window, center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).square().sum(dim=-1) + _LEAST_POWER).sqrt()  # [B, bins, T]
    bank = mel_filter_bank(
        _FFT // 2 + 1, config.mel_dim, 0.0, _HIGHEST_HZ, config.sample_rate, norm="slaney", mel_scale="slaney"
    )
    mel = torch.from_numpy(bank.T).float().to(samples.device) @ magnitude
    return mel.clamp(min=_LEAST_MEL).log().transpose(1, 2)


class TDNN(nn.Module):
    """A reflect-padded "same" convolution over time, then ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding="same", padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Res2Net(nn.Module):
    """Splits the channels into `scale` parts. Every part but the first is convolved; from the third on, the output of
    the part before is added first."""

    def __init__(self, channels: int, kernel: int, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.scale = scale
        self.blocks = nn.ModuleList(TDNN(width, width, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(self.scale, dim=1)
        outputs = [parts[0]]
        for index, block in enumerate(self.blocks):
            part = parts[index + 1]
            outputs.append(block(part if index == 0 else part + outputs[-1]))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Scales every channel by a gate that is computed from the channels' means over time."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, inner, 1)
        self.conv2 = nn.Conv1d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv2(F.relu(self.conv1(x.mean(dim=2, keepdim=True))))
        return x * torch.sigmoid(gate)


class SERes2Net(nn.Module):
    """TDNN, Res2Net, TDNN and squeeze-excitation, with a residual around all four."""

    def __init__(self, channels: int, kernel: int, dilation: int, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        self.tdnn1 = TDNN(channels, channels, 1, 1)
        self.res2net_block = Res2Net(channels, kernel, dilation, config.enc_res2net_scale)
        self.tdnn2 = TDNN(channels, channels, 1, 1)
        self.se_block = SqueezeExcitation(channels, config.enc_se_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))
        return out


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over time, weighted by attention that sees the global statistics."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.tdnn = TDNN(3 * channels, inner, 1, 1)
        self.conv = nn.Conv1d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = _statistics(x, torch.full_like(x[:, :1], 1.0 / x.shape[2]))
        context = torch.cat((x, mean.expand_as(x), std.expand_as(x)), dim=1)
        weights = torch.softmax(self.conv(torch.tanh(self.tdnn(context))), dim=2)
        return torch.cat(_statistics(x, weights), dim=1)


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(dim=2, keepdim=True)
    variance = (weights * (x - mean).square()).sum(dim=2, keepdim=True)
    return mean, variance.clamp(min=1e-12).sqrt()


class SpeakerEncoder(nn.Module):
    """The module of weights `speaker_encoder.*` in a Base checkpoint."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        channels, kernels, dilations = config.enc_channels, config.enc_kernel_sizes, config.enc_dilations
        self.blocks = nn.ModuleList([TDNN(config.mel_dim, channels[0], kernels[0], dilations[0])])
        for index in range(1, len(channels) - 1):
            self.blocks.append(SERes2Net(channels[index], kernels[index], dilations[index], config))
        self.mfa = TDNN(channels[-1], channels[-1], kernels[-1], dilations[-1])
        self.asp = AttentiveStatistics(channels[-1], config.enc_attention_channels)
        self.fc = nn.Conv1d(2 * channels[-1], config.enc_dim, 1)
        self.config = config

    def forward(self, mel: Tensor) -> Tensor:
        """Turn mel [B, T, mel_dim] into speaker embeddings [B, enc_dim], not normalised."""
        x = self.blocks[0](mel.transpose(1, 2))
        outputs = []
        for block in self.blocks[1:]:
            x = block(x)
            outputs.append(x)
        x = self.asp(self.mfa(torch.cat(outputs, dim=1)))
        out: Tensor = self.fc(x).squeeze(2)
        return out

    @torch.inference_mode()
    def embed(self, samples: Tensor) -> Tensor:
        """Turn one clip, samples [S] at config.sample_rate, into its speaker embedding [enc_dim]."""
        out: Tensor = self(log_mel(samples[None], self.config))[0]
        return out


def load_speaker_encoder(directory: Path, config: SpeakerEncoderConfig, device: torch.device) -> SpeakerEncoder:
    """Load the speaker encoder of a Base checkpoint in float32. Raises CheckpointError."""
    with torch.device("meta"):
        encoder = SpeakerEncoder(config)
    load_weights(
        encoder,
        directory / WEIGHTS_FILE,
        device=device,
        dtype=torch.float32,
        prefix=SPEAKER_ENCODER_PREFIX,
        ignore=("talker.",),
    )
    return encoder
