"""Flow of solution procedure (FSP: Yim et al. 2017, CVPR): how one layer's channels relate to a later one's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import exactly, paired_maps
from kd_lightning.outputs import ModelOutput


def flow_matrix(first: Tensor, second: Tensor, largest: bool = False) -> Tensor:
    """Inner products of the channels of two maps over positions: (N, C, H, W), (N, D, h, w) give (N, C, D).

    The larger map is averaged down, or with ``largest`` pooled by its maxima; divided by the number of positions.
    """
    if largest:
        size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
        first, second = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    first, second = of_equal_size(first, second)
    first, second = first.flatten(2), second.flatten(2)
    return first @ second.transpose(1, 2) / first.shape[2]


class FlowLoss(nn.Module):
    """Mean squared difference of the flow matrices of consecutive taps, summed over pairs.

    ``loss = sum_k mean ( G(f_k, f_k+1)_student - G(f_k, f_k+1)_teacher )^2``. The paper trains it in a first stage;
    both models need equal numbers of channels at each tap.

    Args:
        taps: names from shallow to deep, at least 2, the same for both models; layers that give maps.
        form: "paper", or "column_norms", torchdistill's: the columns' Euclidean norms, summed and divided by N, of
            maps pooled by their maxima.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], form: str = "paper") -> None:
        super().__init__()
        if form not in ("paper", "column_norms"):
            raise UserError(f"form of FSP must be paper or column_norms, got {form!r}")
        self.form = form
        if len(taps) < 2:
            raise UserError("FlowLoss needs at least two taps: it compares what happens between layers")
        self.taps = list(taps)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name, equal C for both models; returns a scalar >= 0."""
        pairs = [paired_maps(student, teacher, tap, "FSP") for tap in self.taps]
        for tap, (ours, theirs) in zip(self.taps, pairs, strict=True):
            if ours.shape[1] != theirs.shape[1]:
                raise UserError(
                    f"tap {tap!r}: FSP needs maps (N, C, H, W) with equal C, got {tuple(ours.shape)} and "
                    f"{tuple(theirs.shape)}: tap layers of equal width"
                )
        losses = []
        with exactly(student.logits):
            for (ours, theirs), (ours_next, theirs_next) in pairwise(pairs):
                largest = self.form == "column_norms"
                difference = flow_matrix(ours, ours_next, largest) - flow_matrix(theirs, theirs_next, largest)
                if largest:
                    squared = difference.square().sum(dim=1)  # the root has no gradient at 0
                    norms = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
                    losses.append(norms.sum() / len(norms))
                else:
                    losses.append(difference.square().mean())
        return torch.stack(losses).sum()
