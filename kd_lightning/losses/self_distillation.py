"""DINO's loss (Caron et al. 2021, arXiv:2104.14294): agree with a teacher's answer to another view, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.inputs import as_reference, checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput


class CentredCrossViewLoss(nn.Module):
    """Cross-entropy of the student's answer to one view with the teacher's, centred and sharpened, to another.

    ``loss = mean over pairs of views (v, w), v != w, of -mean_i sum_c softmax((t_vi - m) / T_t)_c log softmax(s_wi /
    T_s)_c``. The centre m, a moving mean of the teacher's outputs, is updated after the loss; without it all outputs
    collapse to one. T_t rises linearly over the first epochs.

    Args:
        student_temperature: T_s > 0.
        teacher_temperature: T_t after the warm-up, > 0.
        warmup_temperature: T_t in the first epoch, > 0.
        warmup_epochs: epochs until ``teacher_temperature``, >= 0.
        momentum: of the centre, in [0, 1).
        teacher_views: views that the teacher answers (the others are the student's alone); None: all.
    """

    centre: Tensor

    def __init__(
        self,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_temperature: float = 0.04,
        warmup_epochs: int = 0,
        momentum: float = 0.9,
        teacher_views: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {momentum}")
        self.student_temperature = checked_temperature(student_temperature, "student_temperature")
        self.teacher_temperature = checked_temperature(teacher_temperature, "teacher_temperature")
        self.warmup_temperature = checked_temperature(warmup_temperature, "warmup_temperature")
        self.warmup_epochs, self.momentum, self.teacher_views = warmup_epochs, float(momentum), teacher_views
        self.register_buffer("centre", torch.zeros(1, 0))

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Make room for the centre; a second call changes nothing."""
        if self.centre.shape[1] != teacher.logits.shape[1]:
            self.centre = torch.zeros(1, teacher.logits.shape[1], device=teacher.logits.device)

    def forward(
        self,
        student: ModelOutput,
        teacher: ModelOutput,
        target: Tensor,
        views: Sequence[tuple[ModelOutput, ModelOutput]],
        clock: Clock,
    ) -> Tensor:
        """Outputs (N, C) for each view; returns a scalar >= 0."""
        ours = [full_precision(student.logits), *(full_precision(pair[0].logits) for pair in views)]
        answers = [as_reference(teacher.logits), *(as_reference(pair[1].logits) for pair in views)]
        return self.of_views(ours, answers[: self.teacher_views], clock.epoch)

    def of_views(self, ours: Sequence[Tensor], answers: Sequence[Tensor], epoch: int) -> Tensor:
        """The loss of the student's outputs by view and the teacher's for the first of them."""
        if len(ours) < 2:
            raise UserError("this loss compares views of each sample: set data.extra_views=1 or more")
        logs = [F.log_softmax(values / self.student_temperature, dim=1) for values in ours]
        centre = self.centre.to(answers[0].dtype)
        sharp = [((values - centre) / self.temperature_of(epoch)).softmax(dim=1) for values in answers]
        losses = [
            -(target * log).sum(dim=1).mean() for v, target in enumerate(sharp) for w, log in enumerate(logs) if v != w
        ]
        if self.training:
            self._move(torch.cat(list(answers)))
        return torch.stack(losses).mean()

    def temperature_of(self, epoch: int) -> float:
        """The teacher's temperature in an epoch, counted from 0."""
        if epoch >= self.warmup_epochs or self.warmup_epochs < 2:
            return self.teacher_temperature
        done = epoch / (self.warmup_epochs - 1)
        return self.warmup_temperature + done * (self.teacher_temperature - self.warmup_temperature)

    @torch.no_grad()
    def _move(self, answers: Tensor) -> None:
        mean = answers.mean(dim=0, keepdim=True)
        self.centre = (self.centre.to(mean.dtype) * self.momentum + mean * (1 - self.momentum)).to(mean.dtype)
