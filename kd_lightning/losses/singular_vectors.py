"""Distillation by singular vectors (KDSVD: Lee et al. 2018, arXiv:1807.06819): the main directions of a map.

Each map, positions by channels, is reduced to its first right singular vectors. How two layers' directions relate, a
radial basis function of their difference, is compared between the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, paired_maps
from kd_lightning.outputs import ModelOutput


class SingularVectorLoss(nn.Module):
    """Squared difference of the relations of consecutive taps' singular vectors, over N, summed over pairs.

    For each tap the right singular vectors of the map (H W, C): the teacher's first k, and of the student's first k + 3
    those that are most alike to them, with their sign; both scaled by the teacher's singular values, normalised. The relation of taps k and k + 1
    is ``exp( -(v_k - v_k+1)^2 / 8 )``.

    Args:
        taps: names from shallow to deep, at least 2; layers that give maps with equal channels in both models.
        vectors: singular vectors kept, >= 1.
        form: "channels", of (H W, C) matrices; or "rows", mdistiller's, of (C H, W): channels may differ then.
    """

    takes_mixed = True

    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], vectors: int = 1, form: str = "channels") -> None:
        super().__init__()
        if form not in ("channels", "rows"):
            raise UserError(f"form of KDSVD must be channels or rows, got {form!r}")
        self.form = form
        if len(taps) < 2 or vectors < 1:
            raise UserError("SingularVectorLoss needs at least two taps and one vector: it compares layer pairs")
        self.taps, self.vectors = list(taps), vectors

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name; returns a scalar >= 0."""
        directions = []
        for tap in self.taps:
            ours, theirs = paired_maps(student, teacher, tap, "KDSVD")
            side = 1 if self.form == "channels" else 3
            if ours.shape[side] != theirs.shape[side]:
                raise UserError(
                    f"tap {tap!r}: KDSVD needs maps with equal channels (form=rows: equal width), got {tuple(ours.shape)} and "
                    f"{tuple(theirs.shape)}: tap layers of equal width"
                )
            with exactly(ours):
                directions.append(self._aligned(ours, theirs))
        total = directions[0][0].new_zeros(())
        for (ours, theirs), (ours_next, theirs_next) in pairwise(directions):
            total = total + (_relation(ours, ours_next) - _relation(theirs, theirs_next)).square().sum()
        return total / len(student.logits)

    def _aligned(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled singular vectors (N, C, k) of both, the student's in the teacher's order and signs."""
        (_, vectors_s), (values_t, vectors_t) = (self._decomposed(maps) for maps in (ours, theirs))
        vectors_t = vectors_t[:, :, : self.vectors]
        cosines = vectors_t.transpose(1, 2) @ vectors_s
        best = cosines.abs().argmax(dim=2, keepdim=True)
        rows = best.expand(-1, -1, vectors_s.shape[1]).transpose(1, 2)
        matched = vectors_s.gather(2, rows) * cosines.gather(2, best).sign().transpose(1, 2)
        scale = F.normalize(values_t[:, : self.vectors], dim=1)[:, None]
        return matched * scale, vectors_t * scale

    def _decomposed(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        rows = maps.flatten(2).transpose(1, 2) if self.form == "channels" else maps.flatten(1, 2)
        _, values, right = torch.linalg.svd(rows, full_matrices=False)
        count = min(self.vectors + 3, values.shape[1])
        return values[:, :count], right.transpose(1, 2)[:, :, :count]


def _relation(first: Tensor, second: Tensor) -> Tensor:
    """Radial basis function of all differences of channels, (N, C, D, k)."""
    return (-(first[:, :, None] - second[:, None]).square() / 8).exp()
