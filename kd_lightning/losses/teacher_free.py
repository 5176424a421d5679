"""Teacher-free distillation (Tf-KD: Yuan et al. 2020, arXiv:1909.11723): soft targets that were made by hand.

Label smoothing is distillation from a teacher that knows nothing but the label. Tf-KD takes a virtual teacher that is
right with a high probability and evenly wrong otherwise. Its other form, a student that learns from an earlier copy of
itself, needs no term of its own: distil with ``kd`` from a teacher of the same architecture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled
from kd_lightning.losses.inputs import checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput

FORMS = ("paper", "authors_code")


class VirtualTeacherLoss(nn.Module):
    """KL divergence from a virtual teacher: the true class with probability ``correct``, the others evenly.

    In the paper's form the virtual distribution u and the student are both softened, ``loss = T^2 * mean_i
    KL( u_i^(1/T) / sum || softmax(s_i / T) )``. ``form="authors_code"`` is what their repository computes: the
    probabilities u are divided by T and go through a softmax again, which is nearly uniform; the student is not
    softened; and the sum over classes is a mean, ``mean_i KL( softmax(u_i / T) || softmax(s_i) ) / C``.

    Args:
        temperature: T > 0; the authors use 20 and 40.
        correct: probability of the true class, in (1 / C, 1).
        form: "paper" or "authors_code".
    """

    needs_teacher = False

    def __init__(self, temperature: float = 20.0, correct: float = 0.99, form: str = "paper") -> None:
        super().__init__()
        if not 0 < correct < 1:
            raise UserError(f"correct must be in (0, 1), got {correct}")
        if form not in FORMS:
            raise UserError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.temperature, self.correct, self.form = checked_temperature(temperature), float(correct), form

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor) -> Tensor:
        """The student's logits (N, C), target of shape (N,); unlabelled samples are left out; returns a scalar >= 0."""
        logits = full_precision(student.logits)
        virtual = smoothed(class_numbers(target), logits, 1 - self.correct)
        if self.form == "authors_code":
            ours, theirs = F.log_softmax(logits, dim=1), F.log_softmax(virtual / self.temperature, dim=1)
            factor = 1 / logits.shape[1]
        else:
            ours = F.log_softmax(logits / self.temperature, dim=1)
            theirs = F.log_softmax(virtual.log() / self.temperature, dim=1)
            factor = self.temperature**2
        losses = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
        return mean_over_labelled(losses, target) * factor


class SmoothedLabelLoss(nn.Module):
    """Cross-entropy with smoothed labels: ``1 - smoothing`` on the true class, the rest evenly on the C - 1 others.

    (torch's own ``label_smoothing`` spreads the rest over all C classes, the true one included.)

    Args:
        smoothing: in (0, 1).
    """

    needs_teacher = False

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 < smoothing < 1:
            raise UserError(f"smoothing must be in (0, 1), got {smoothing}")
        self.smoothing = float(smoothing)

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor) -> Tensor:
        """The student's logits (N, C), target of shape (N,); unlabelled samples are left out; returns a scalar >= 0."""
        logits = full_precision(student.logits)
        labels = smoothed(class_numbers(target), logits, self.smoothing)
        return mean_over_labelled(-(labels * F.log_softmax(logits, dim=1)).sum(dim=1), target)


def smoothed(target: Tensor, like: Tensor, smoothing: float) -> Tensor:
    """Distributions (N, C): ``1 - smoothing`` on the class, the rest evenly on the others."""
    labels = torch.full_like(like, smoothing / (like.shape[1] - 1), requires_grad=False)
    return labels.scatter(1, target.clamp(min=0)[:, None], 1 - smoothing)
