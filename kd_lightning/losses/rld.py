"""Refined logit distillation (RLD: Sun et al. 2024, arXiv:2408.07703): the teacher's confidence, without its mistakes.

Soft targets pass on which class a mistaken teacher prefers. RLD keeps how sure the teacher is, given to the true class
whatever class it meant, and of the other classes only those that the teacher ranks below the true one. The paper's
alpha and beta are the weights of the two terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.classes import class_numbers, mean_over_labelled, true_class
from kd_lightning.losses.dkd import binary_log
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput

OUT = -1e9  # the logit of a class that is left out: its probability rounds to 0, its logarithm stays finite


class SampleConfidenceLoss(nn.Module):
    """Divergence between how sure the teacher is of its choice and how sure the student is of the true class.

    ``loss = T^2 * mean_i KL( (max_c p_ic, rest)_teacher || (p_iy, rest)_student )`` at temperature T, over labelled
    samples.

    Args:
        temperature: softening T, > 0 (the paper's tau of the first term, apart from that of the second).
        standardise: compare each sample's logits standardised.
    """

    def __init__(self, temperature: float = 1.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.standardise = standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        student_log = binary_log(student_logits / self.temperature, target)
        teacher_log = binary_log(teacher_logits / self.temperature, teacher_logits.argmax(dim=1))
        losses = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)
        return mean_over_labelled(losses, target) * self.temperature**2


class MaskedCorrelationLoss(nn.Module):
    """Soft targets over the classes that the teacher ranks below the true one.

    ``loss = T^2 * mean_i KL( softmax(t_i / T) || softmax(s_i / T) )``, both over ``{c: t_ic < t_iy}``, over labelled
    samples; a sample whose true class is the teacher's last costs nothing.

    Args:
        temperature: softening T, > 0.
        standardise: compare each sample's logits standardised.
    """

    def __init__(self, temperature: float = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.standardise = standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        kept = teacher_logits < true_class(teacher_logits, class_numbers(target))[:, None]
        out = torch.full((), OUT, dtype=student_logits.dtype, device=student_logits.device)
        masked = [torch.where(kept, logits, out) for logits in (student_logits, teacher_logits)]
        return mean_over_labelled(softened_divergence(masked[0], masked[1], self.temperature), target)
