"""DeepKD's split of the soft loss (Huang et al. 2025, arXiv:2505.15133): its other-classes part over the likeliest.

The gradient of soft targets has a part of the true class and one of the others. DeepKD gives each (and the task's loss)
a momentum of its own (:class:`kd_lightning.optimizers.deepkd.DeepKD`), and leaves out classes that the teacher thinks
least likely, whose small probabilities are noise. The true class's part is DKD's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled, true_class
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.losses.rld import OUT
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput


class LikelyClassesLoss(nn.Module):
    """Soft targets over the teacher's ``top_k`` likeliest classes without the true one.

    ``loss = T^2 * mean_i KL( softmax(t_i / T) || softmax(s_i / T) )`` over those classes and labelled samples. The true
    class counts among the ``top_k`` where the teacher has it there. With ``doubt`` the mean is multiplied by the mean
    of ``1 - p_iy(teacher)`` at T, as plain soft targets weigh this part (there sample by sample).

    Args:
        temperature: softening T, > 0.
        top_k: classes kept, >= 2; None keeps all.
        doubt: multiply by the teacher's mean doubt.
        standardise: compare each sample's logits standardised.
    """

    def __init__(
        self, temperature: float = 4.0, top_k: int | None = None, doubt: bool = False, standardise: bool = False
    ) -> None:
        super().__init__()
        if top_k is not None and top_k < 2:
            raise UserError(f"top_k must be >= 2 or null for all classes, got {top_k}")
        self.temperature = checked_temperature(temperature)
        self.top_k, self.doubt, self.standardise = top_k, doubt, standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        numbers = class_numbers(target).clamp(min=0)[:, None]
        if self.top_k is None or self.top_k >= teacher_logits.shape[1]:
            kept = torch.ones_like(teacher_logits, dtype=torch.bool)
        else:
            best = teacher_logits.topk(self.top_k, dim=1).indices
            kept = torch.zeros_like(teacher_logits, dtype=torch.bool).scatter(1, best, True)
        kept = kept.scatter(1, numbers, False)
        out = torch.full((), OUT, dtype=student_logits.dtype, device=student_logits.device)
        masked = [torch.where(kept, logits, out) for logits in (student_logits, teacher_logits)]
        loss = mean_over_labelled(softened_divergence(masked[0], masked[1], self.temperature), target)
        if self.doubt:
            certainty = true_class((teacher_logits / self.temperature).softmax(dim=1), target)
            loss = loss * mean_over_labelled(1 - certainty, target)
        return loss
