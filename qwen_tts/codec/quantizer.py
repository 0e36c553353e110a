"""Codes -> latent: split residual vector quantisation (the decoding half).

Group 0 is the only codebook of the semantic quantiser. Groups 1..G-1 are those of the acoustic one, whose entries are
added.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.config import CodecDecoderConfig


class Codebook(nn.Module):
    """A codebook stored as running sums: entry = embedding_sum / clamp(cluster_usage, 1e-5)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.cluster_usage = nn.Parameter(torch.empty(size))
        self.embedding_sum = nn.Parameter(torch.empty(size, width))

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, F] -> [B, F, width]."""
        usage = self.cluster_usage.clamp(min=1e-5)[codes]
        return F.embedding(codes, self.embedding_sum) / usage[..., None]


class CodebookHolder(nn.Module):
    """Gives the codebook its name in the checkpoint: layers.N._codebook."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, width)

    def forward(self, codes: Tensor) -> Tensor:
        out: Tensor = self._codebook(codes)
        return out


class CodebookStack(nn.Module):
    """The codebooks of one quantiser, whose entries are summed."""

    def __init__(self, count: int, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CodebookHolder(size, width) for _ in range(count))

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, F, count] -> [B, F, width]."""
        total: Tensor = self.layers[0](codes[..., 0])
        for index, layer in enumerate(self.layers[1:], start=1):
            total = total + layer(codes[..., index])
        return total


class ResidualQuantizer(nn.Module):
    """A codebook stack between two 1x1 convolutions. Decoding uses only the second one."""

    def __init__(self, count: int, size: int, width: int, outputs: int) -> None:
        super().__init__()
        self.vq = CodebookStack(count, size, width)
        self.input_proj = nn.Conv1d(outputs, width, 1, bias=False)
        self.output_proj = nn.Conv1d(width, outputs, 1, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, F, count] -> [B, outputs, F]."""
        out: Tensor = self.output_proj(self.vq(codes).transpose(1, 2))
        return out


class SplitQuantizer(nn.Module):
    """Semantic plus acoustic quantiser."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        semantic = config.num_semantic_quantizers
        width = config.codebook_dim // 2
        self.semantic_groups = semantic
        self.rvq_first = ResidualQuantizer(semantic, config.codebook_size, width, config.codebook_dim)
        self.rvq_rest = ResidualQuantizer(
            config.num_quantizers - semantic, config.codebook_size, width, config.codebook_dim
        )

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, F, G] int64 -> [B, codebook_dim, F]."""
        split = self.semantic_groups
        out: Tensor = self.rvq_first(codes[..., :split]) + self.rvq_rest(codes[..., split:])
        return out
