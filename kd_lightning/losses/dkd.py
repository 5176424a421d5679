"""Decoupled distillation (DKD: Zhao et al. 2022, arXiv:2203.08679): true class and other classes, weighed apart.

Soft-target distillation is the sum of two parts: how probable the true class is, and how the rest is spread over the
other classes, the second multiplied by the teacher's doubt. DKD frees the second part of that factor. The paper's
alpha and beta are the weights of the two terms here: ``weights.true_class`` and ``weights.other_classes``.

Unlabelled samples are left out of both. The first 20 epochs of the authors' training raise both weights from 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import mean_over_labelled, other_classes, true_class
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput


class TrueClassLoss(nn.Module):
    """Divergence of the two probabilities "true class" and "any other class" (the paper's TCKD).

    ``loss = T^2 * mean_i KL( (p_iy, 1 - p_iy)_teacher || (p_iy, 1 - p_iy)_student )`` at temperature T, over labelled
    samples. The logarithm of ``1 - p`` is taken from the other classes' logits, so that it stays finite where p
    rounds to 1.

    Args:
        temperature: softening T, > 0.
        standardise: compare each sample's logits standardised (:func:`kd_lightning.losses.inputs.standardised`).
    """

    def __init__(self, temperature: float = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.standardise = standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,), or (N, C) of probabilities; returns a scalar >= 0."""
        return mean_over_labelled(self.per_sample(student, teacher, target), target)

    def per_sample(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """The loss of each sample, (N,); arbitrary where unlabelled."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        student_log = binary_log(student_logits / self.temperature, target)
        teacher_log = binary_log(teacher_logits / self.temperature, target)
        losses = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)
        return losses * self.temperature**2


class OtherClassesLoss(nn.Module):
    """Divergence of the distributions over all classes but the true one (the paper's NCKD).

    ``loss = T^2 * mean_i KL( softmax(t_i,-y / T) || softmax(s_i,-y / T) )`` over labelled samples, where ``-y``
    leaves the true class out. (The authors subtract 1000 from its logit instead, which fails at larger gaps.)

    Args:
        temperature: softening T, > 0.
        standardise: compare each sample's logits standardised (:func:`kd_lightning.losses.inputs.standardised`).
    """

    def __init__(self, temperature: float = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.standardise = standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) with C >= 3, target of shape (N,), or (N, C) of probabilities; returns a scalar >= 0."""
        return mean_over_labelled(self.per_sample(student, teacher, target), target)

    def per_sample(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """The loss of each sample, (N,); arbitrary where unlabelled."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        if student_logits.shape[1] < 3:
            raise UserError("DKD's other_classes term needs at least 3 classes: set its weight to 0 or use method=kd")
        others = other_classes(student_logits, target), other_classes(teacher_logits, target)
        return softened_divergence(*others, self.temperature)


def binary_log(logits: Tensor, target: Tensor) -> Tensor:
    """``log p(true class)`` and ``log p(any other)``: (N, C) and (N,) give (N, 2)."""
    total = logits.logsumexp(dim=1)
    true = true_class(logits, target) - total
    other = other_classes(logits, target).logsumexp(dim=1) - total
    return torch.stack([true, other], dim=1)
