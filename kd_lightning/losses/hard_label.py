"""Hard-label distillation: the teacher's decision as a second label (DeiT: Touvron et al. 2021, arXiv:2012.12877)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.inputs import paired_logits
from kd_lightning.outputs import ModelOutput


class HardLabelLoss(nn.Module):
    """Cross-entropy of the student against the class that the teacher thinks most likely.

    ``loss = mean_i CE( s_i, argmax_c t_ic )``. Nothing is softened, so there is no temperature. It works with
    teachers that give nothing but a decision, and on unlabelled samples. DeiT weighs it 0.5 against 0.5 for the
    true label.

    Args:
        label_smoothing: probability mass spread evenly over all classes, in [0, 1).
        tap: the student's feature (N, C) that is compared, of a head of its own
            (:mod:`kd_lightning.models.distillation_token`); None: its logits.
    """

    takes_mixed = True
    requires = frozenset({"labels"})

    def __init__(self, label_smoothing: float = 0.0, tap: str | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing, self.tap = label_smoothing, tap

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), the same for both; returns a scalar >= 0."""
        if self.tap is not None:
            student = ModelOutput(student.features[self.tap])
        student_logits, teacher_logits = paired_logits(student, teacher)
        decision = teacher_logits.argmax(dim=1)
        return F.cross_entropy(student_logits, decision, label_smoothing=self.label_smoothing)
