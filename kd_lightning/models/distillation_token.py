"""A vision transformer with a token that learns from the teacher (DeiT: Touvron et al. 2021, ICML, arXiv:2012.12877).

::

    patches ─► tokens ─┐            ┌─► mean of the patches' ─► hidden ─► classifier ──► against the label
    distillation token ┴─► blocks ──┴─► the token's own ─────► hidden ─► distillation ─► against the teacher's decision

The second head belongs to the student: it is stored and exported with it, and outside training the two heads' logits are
averaged, as in the authors' code (their paper adds the softmaxes, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.models.small_vit import SmallViT


class DistillationToken(nn.Module):
    """A :class:`~kd_lightning.models.small_vit.SmallViT` with the token and its head.

    Layers for taps: ``distillation`` (the token's logits (N, C)), and the transformer's own behind ``vit.``.

    Args:
        vit: the transformer, whose layers are used as they are.
    """

    def __init__(self, vit: SmallViT) -> None:
        super().__init__()
        self.vit = vit
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, vit.classifier.in_features))
        self.distillation = nn.Linear(vit.classifier.in_features, vit.classifier.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures as of the transformer; returns the label head's logits (N, C) in training, else the mean of both heads'."""
        tokens = self.vit.tokens(inputs)
        seen = self.vit.blocks(torch.cat([tokens, self.token.expand(tokens.shape[0], -1, -1)], 1))
        taught = self.distillation(self.vit.hidden(seen[:, -1]))
        label: Tensor = self.vit.classifier(self.vit.hidden(seen[:, :-1].mean(1)))
        return label if self.training else (label + taught) / 2


def with_distillation_token(
    student: nn.Module,
    *,
    teacher: nn.Module | None = None,
    example: Any = None,
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The student with the token: a method's ``wrap``.

    Raises:
        UserError: the student is no small_vit.
    """
    if not isinstance(student, SmallViT):
        raise UserError(
            f"method.wrap: puts a distillation token beside a transformer's, and the student is a {type(student).__name__}: take "
            "student=small_vit, or leave preset=token out"
        )
    return DistillationToken(student)
