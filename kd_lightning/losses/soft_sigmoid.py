"""Soft targets where every class is a question of its own: Hinton's distillation with a sigmoid in the softmax's place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.joints import UNNORMALISED
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


class SoftSigmoidLoss(nn.Module):
    """KL divergence of the two answers "yes" and "no" of each class, both models' softened by a temperature.

    ``loss = T^2 * mean_i,c KL( Bernoulli(sigmoid(t_ic / T)) || Bernoulli(sigmoid(s_ic / T)) )``: averaged over samples and
    classes. ``T^2`` keeps the gradient's size (Hinton et al. 2015, arXiv:1503.02531, section 2.1). For one logit it is the
    softened softmax of the two logits (z, 0), whose distillation it then equals.

    Args:
        temperature: softening T > 0.
    """

    takes_mixed = True
    requires = frozenset({UNNORMALISED})

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits (N, C) of both models; returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        s, t = student_logits / self.temperature, teacher_logits / self.temperature
        yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
        no = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        return self.temperature**2 * (yes + no).mean()
