"""What losses on values share: both models' predictions, the truth, and which samples have one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import as_reference, full_precision
from kd_lightning.outputs import ModelOutput


class ValueTriple(NamedTuple):
    """Predictions and truth, each (N, D), in standardised units.

    Attributes:
        student: with its graph.
        teacher: detached.
        target: 0 where it is not known.
        known: bool, where it is.
    """

    student: Tensor
    teacher: Tensor
    target: Tensor
    known: Tensor


def values_of(student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
    """Predictions of both models, (N, D) each.

    Raises:
        UserError: their shapes differ.
    """
    ours, theirs = full_precision(student.logits), as_reference(teacher.logits)
    if ours.shape != theirs.shape:
        raise UserError(
            f"the student answers with values of shape {tuple(ours.shape)}, the teacher {tuple(theirs.shape)}: both must "
            "answer for the same targets"
        )
    return ours, theirs


def value_triple(student: ModelOutput, teacher: ModelOutput, target: Tensor) -> ValueTriple:
    """Predictions and truth of one batch; ``target`` (N,) or (N, D), nan where it is not known."""
    ours, theirs = values_of(student, teacher)
    truth = target.reshape(ours.shape).to(ours)
    known = ~truth.isnan()
    return ValueTriple(ours, theirs, torch.where(known, truth, 0.0), known)


def mean_over_known(losses: Tensor, known: Tensor) -> Tensor:
    """Mean of losses (N, D) over the values whose truth is known; 0, with a zero gradient, if there is none."""
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)
