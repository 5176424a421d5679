"""Queues of embeddings: what contrastive and similarity losses compare a batch with, beyond the batch itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly


class EmbeddingQueue(nn.Module):
    """The last ``size`` embeddings of a kind, as buffers: they travel in a run's checkpoint.

    Args:
        size: rows kept, >= 1.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"a queue needs a size >= 1, got {size}")
        self.size = size
        self.register_buffer("rows", torch.zeros(size, 0))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def make(self, dimension: int, device: torch.device) -> None:
        """Fill it with random unit vectors of this dimension; a second call changes nothing."""
        if self.rows.shape[1] != dimension:
            self.rows = F.normalize(torch.randn(self.size, dimension), dim=1).to(device)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Write rows over the oldest ones; of more rows than places the last stay."""
        rows = rows[-self.size :]
        place = (int(self.place) + torch.arange(len(rows), device=self.rows.device)) % self.size
        kept = self.rows.clone()  # a graph may still need the old ones
        kept[place] = rows.detach().to(kept)
        self.rows = kept
        self.place.fill_((int(self.place) + len(rows)) % self.size)


def queue_logits(rows: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Products of unit rows (N, D) with a queue (K, D), over the temperature: (N, K)."""
    with exactly(rows):
        return rows @ queue.to(rows.dtype).T / temperature
