"""Attention transfer (Zagoruyko & Komodakis 2017, arXiv:1612.03928): look where the teacher looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import paired_maps
from kd_lightning.outputs import ModelOutput

FORMS = ("authors_code", "paper")


def attention_map(maps: Tensor, power: float, signed: bool = False, epsilon: float | None = None) -> Tensor:
    """How strongly each position is activated: maps (N, C, H, W) give unit vectors (N, H * W).

    ``signed`` leaves out the absolute value; ``epsilon`` is added to the norm of the sums over channels instead of
    bounding it at 1e-12.
    """
    powers = (maps if signed else maps.abs()).pow(power)
    if epsilon is None:
        return F.normalize(powers.mean(dim=1).flatten(1), dim=1)
    sums = powers.sum(dim=1).flatten(1)
    return sums / (torch.linalg.vector_norm(sums, dim=1, keepdim=True) + epsilon)


class AttentionLoss(nn.Module):
    """Mean squared difference of normalised attention maps, summed over taps.

    ``loss = sum_k mean_{i,hw} ( q_k,i(student) - q_k,i(teacher) )^2`` with ``q = a / |a|`` and ``a = mean_c |f|^p``.
    This is the authors' code; their paper has the norm of the difference, not its mean square. Maps of different
    height and width are averaged down to the smaller. The usual weight is 1000: the differences are small.

    Args:
        taps: names of the taps to compare, the same for both models; their layers give maps.
        power: exponent p, > 0.
        form: "authors_code", or "paper": ``sum_k mean_i |q_k,i(student) - q_k,i(teacher)|``.
        signed: leave out the absolute value before the power, as RepDistiller does: at p = 1 activations cancel.
        epsilon: added to the norm, 1e-6 in one code (Knowledge-Distillation-Zoo); None bounds it instead.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self,
        taps: Sequence[str],
        power: float = 2.0,
        form: str = "authors_code",
        signed: bool = False,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        if not taps:
            raise UserError("AttentionLoss needs at least one tap: set taps to names from method.taps.student")
        if not power > 0:
            raise ValueError(f"power must be > 0, got {power}")
        self.taps = list(taps)
        if form not in FORMS:
            raise UserError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.power, self.form, self.signed, self.epsilon = power, form, signed, epsilon

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, C, H, W) under each tap's name, any C; returns a scalar >= 0."""
        losses = []
        for tap in self.taps:
            student_maps, teacher_maps = of_equal_size(*paired_maps(student, teacher, tap, "attention"))
            ours, theirs = (
                attention_map(maps, self.power, self.signed, self.epsilon) for maps in (student_maps, teacher_maps)
            )
            difference = ours - theirs
            if self.form == "paper":
                squared = difference.square().sum(dim=1)  # the root has no gradient at 0
                losses.append((torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)).mean())
            else:
                losses.append(difference.square().mean())
        return torch.stack(losses).sum()
