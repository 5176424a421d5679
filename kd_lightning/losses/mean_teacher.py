"""Mean teacher (Tarvainen & Valpola 2017, arXiv:1703.01780): learn from the moving average of one's own weights.

No teacher and no labels are needed: what the average says of a sample is steadier than what the student says now.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.inputs import as_reference, checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput, as_model_output

DISTANCES = ("kl", "squared")


class MeanTeacherLoss(nn.Module):
    """Distance from the averaged student's softened probabilities to the student's.

    ``kl``: ``T^2 mean_i KL( p'_i || p_i )``; ``squared``, the paper's: ``mean_ic ( p'_ic - p_ic )^2``. The average,
    ``w' = m w' + (1 - m) w`` after each optimizer step with ``m = min(momentum, 1 - 1 / (step + 1))``, is asked in eval
    mode; buffers are copied. It is stored in the run's checkpoint, not in the exported student.

    Args:
        momentum: m, in [0, 1).
        temperature: softening T, > 0.
        distance: "kl" or "squared".
    """

    takes_mixed = True
    needs_teacher = False

    def __init__(self, momentum: float = 0.99, temperature: float = 1.0, distance: str = "kl") -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UserError(f"momentum of the mean teacher must be in [0, 1), got {momentum}")
        if distance not in DISTANCES:
            raise UserError(f"distance of the mean teacher must be one of {', '.join(DISTANCES)}, got {distance!r}")
        self.momentum, self.temperature, self.distance = momentum, checked_temperature(temperature), distance
        self.average: nn.Module | None = None

    def bind(self, student_model: nn.Module, teacher_model: nn.Module | None) -> None:
        """Begin the average with the student's weights; a second call changes nothing."""
        if self.average is None:
            self.average = copy.deepcopy(student_model).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MeanTeacherLoss:
        """As any module's; the average stays in eval mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor, batch: Batch) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        if self.average is None:
            raise RuntimeError("MeanTeacherLoss has no average yet: call bind(student_model, None) first")
        with torch.no_grad():
            answer = as_reference(as_model_output(ask(self.average, batch.inputs)).logits)
        ours, theirs = full_precision(student.logits) / self.temperature, answer / self.temperature
        if self.distance == "squared":
            return F.mse_loss(ours.softmax(dim=1), theirs.softmax(dim=1))
        divergence = F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), reduction="none", log_target=True).sum(dim=1)
        return divergence.mean() * self.temperature**2

    @torch.no_grad()
    def after_step(self, student_model: nn.Module, clock: Clock) -> None:
        """Move the average towards the student's weights."""
        if self.average is None:
            return
        momentum = min(self.momentum, 1 - 1 / (clock.step + 1))
        for weight, new in zip(self.average.parameters(), student_model.parameters(), strict=True):
            weight.lerp_(new.detach().to(weight), 1 - momentum)
        for buffer, latest in zip(self.average.buffers(), student_model.buffers(), strict=True):
            buffer.copy_(latest)
