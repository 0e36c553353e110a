"""Codebooks that learn: running averages of the vectors they stand for (arXiv:1711.00937, appendix A.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DECAY = 0.98
_DEAD = 0.03  # a code used less than this part of the mean is moved to where vectors are
_KMEANS_ROUNDS = 15


class LearningCodebook(nn.Module):
    """Entries are sums / usage, as in a checkpoint. Vectors [N, d]."""

    usage: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("sums", torch.zeros(size, width))

    def entries(self) -> Tensor:
        return self.sums / self.usage.clamp(min=1e-5)[:, None]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Codes [N]."""
        return torch.cdist(vectors[None], self.entries()[None])[0].argmin(dim=1)

    def initialise(self, vectors: Tensor) -> None:
        """k-means."""
        picked = torch.randperm(len(vectors))[: len(self.usage)]
        self.sums.copy_(vectors[picked])
        self.usage.fill_(1.0)
        for _ in range(_KMEANS_ROUNDS):
            counts, sums = self._gather(vectors, self.nearest(vectors))
            kept = counts > 0
            self.sums[kept] = sums[kept] / counts[kept, None]
        self.usage.fill_(len(vectors) / len(self.usage))
        self.sums.mul_(self.usage[:, None])

    def learn(self, vectors: Tensor, codes: Tensor) -> None:
        counts, sums = self._gather(vectors, codes)
        self.usage.lerp_(counts, 1 - _DECAY)
        self.sums.lerp_(sums, 1 - _DECAY)
        dead = (self.usage < _DEAD * self.usage.mean()).nonzero()[:, 0]
        if len(dead):
            replacements = vectors[torch.randint(len(vectors), (len(dead),))]
            self.usage[dead] = self.usage.mean()
            self.sums[dead] = replacements * self.usage[dead, None]

    def _gather(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.zeros_like(self.usage).index_add_(0, codes, torch.ones(len(codes)))
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        return counts, sums


class LearningQuantizer(nn.Module):
    """Residual codebooks, straight-through."""

    def __init__(self, count: int, size: int, width: int) -> None:
        super().__init__()
        self.codebooks = nn.ModuleList(LearningCodebook(size, width) for _ in range(count))

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """vectors [N, d]: k-means, codebook after codebook on what those before leave over."""
        residual = vectors
        for book in self.books:
            book.initialise(residual)
            residual = residual - book.entries()[book.nearest(residual)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, d, F] -> quantised [B, d, F] (its gradient goes to x), commitment loss, codes [B, F, count]."""
        vectors = x.float().transpose(1, 2)  # [B, F, d]
        with torch.no_grad():
            flat = vectors.detach().flatten(0, 1)
            residual, codes = flat, []
            for book in self.books:
                code = book.nearest(residual)
                if self.training:
                    book.learn(residual, code)
                codes.append(code)
                residual = residual - F.embedding(code, book.entries())
            quantised = (flat - residual).view_as(vectors)
            stacked = torch.stack(codes, dim=1).view(*vectors.shape[:2], -1)
        commitment = F.mse_loss(vectors, quantised)
        through = vectors + (quantised - vectors).detach()
        return through.transpose(1, 2), commitment, stacked

    @property
    def books(self) -> list[LearningCodebook]:
        return [book for book in self.codebooks if isinstance(book, LearningCodebook)]
