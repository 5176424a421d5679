"""Adaptive target enhancement (OFA-KD: Hao et al. 2023, arXiv:2310.19444): soft targets for unlike architectures.

Where teacher and student see the world differently (a transformer and a convolutional network), what the teacher thinks
of the wrong classes may mislead. Raising the sum of label and prediction to a power strengthens what both agree on.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


class AdaptiveTargetLoss(nn.Module):
    """Cross-entropy with the teacher's probabilities, the true class's enhanced.

    ``loss = -mean_i sum_c ( (p_ic + 1[c = y])^eps - 1[c = y] ) log q_ic``, p the teacher's, q the student's probability
    at temperature T, without a factor T^2. This is the authors' code, which raises the other classes to the power too; 1
    gives the soft cross-entropy. Of a sample without a label no class is enhanced: its target is p^eps.

    Args:
        power: eps, >= 1; the authors use 1 to 1.5.
        temperature: softening T, > 0.
    """

    def __init__(self, power: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        if not power >= 1:
            raise UserError(f"power must be >= 1, got {power}")
        self.power, self.temperature = float(power), checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        numbers = class_numbers(target)
        label = F.one_hot(numbers.clamp(min=0), student_logits.shape[1]).to(student_logits.dtype)
        label = label * (numbers != UNLABELLED)[:, None]
        enhanced = ((teacher_logits / self.temperature).softmax(dim=1) + label) ** self.power - label
        return -(enhanced * F.log_softmax(student_logits / self.temperature, dim=1)).sum(dim=1).mean()
