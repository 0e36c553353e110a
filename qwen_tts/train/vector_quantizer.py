"""Codebooks that learn as running averages of the vectors assigned to them (arXiv:1711.00937, appendix A.1)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_DECAY = 0.98
_DEAD = 0.03  # a code with less than this share of the mean usage is moved to a current vector
_KMEANS_ROUNDS = 15


class LearningCodebook(nn.Module):
    """A codebook whose entries are sums / usage, as in a checkpoint. Vectors are [N, d]."""

    usage: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("sums", torch.zeros(size, width))

    def entries(self) -> Tensor:
        return self.sums / self.usage.clamp(min=1e-5)[:, None]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the codes [N] of the nearest entries."""
        return torch.cdist(vectors[None], self.entries()[None])[0].argmin(dim=1)

    def initialise(self, vectors: Tensor) -> None:
        """Set the entries by k-means."""
        picked = torch.randperm(len(vectors))[: len(self.usage)]
        self.sums.copy_(vectors[picked])
        self.usage.fill_(1.0)
        for _ in range(_KMEANS_ROUNDS):
            counts, sums = self._gather(vectors, self.nearest(vectors))
            kept = counts > 0
            self.sums[kept] = sums[kept] / counts[kept, None]
        self.usage.fill_(len(vectors) / len(self.usage))
        self.sums.mul_(self.usage[:, None])

    def learn(self, vectors: Tensor) -> None:
        counts, sums = self._gather(vectors, self.nearest(vectors))
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
    """Residual codebooks with a straight-through gradient."""

    def __init__(self, count: int, size: int, width: int) -> None:
        super().__init__()
        self.codebooks = nn.ModuleList(LearningCodebook(size, width) for _ in range(count))

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Initialise with vectors [N, d]: k-means for one codebook after the other, each on the residual so far."""
        residual = _of_all_processes(vectors)
        for book in self.books:
            book.initialise(residual)
            residual = residual - book.entries()[book.nearest(residual)]

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """x [B, d, F] -> codes [B, F, count], without learning."""
        residual, codes = x.float().transpose(1, 2).flatten(0, 1), []
        for book in self.books:
            codes.append(book.nearest(residual))
            residual = residual - F.embedding(codes[-1], book.entries())
        return torch.stack(codes, dim=1).view(x.shape[0], x.shape[2], -1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, d, F] -> quantised [B, d, F] (its gradient goes to x), commitment loss."""
        vectors = x.float().transpose(1, 2)  # [B, F, d]
        with torch.no_grad():
            residual = flat = vectors.flatten(0, 1)
            for book in self.books:
                code = book.nearest(residual)
                if self.training:
                    book.learn(_of_all_processes(residual))
                residual = residual - F.embedding(code, book.entries())
            quantised = (flat - residual).view_as(vectors)
        commitment = F.mse_loss(vectors, quantised)
        through = vectors + (quantised - vectors).detach()
        return through.transpose(1, 2), commitment

    @property
    def books(self) -> list[LearningCodebook]:
        return [book for book in self.codebooks if isinstance(book, LearningCodebook)]


def _of_all_processes(vectors: Tensor) -> Tensor:
    """Gather the vectors of all processes that train together, so that their codebooks stay equal."""
    if not dist.is_initialized():
        return vectors
    gathered = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, vectors.contiguous())
    return torch.cat(gathered)
