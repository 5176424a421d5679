"""Self-distillation without labels (DINO: Caron et al. 2021, arXiv:2104.14294): the teacher is an average of the student."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.inputs import exactly, full_precision
from kd_lightning.losses.self_distillation import CentredCrossViewLoss
from kd_lightning.outputs import ModelOutput, as_model_output

Views = Sequence[tuple[ModelOutput, "ModelOutput | None"]]


class OwnAverageLoss(nn.Module):
    """Cross-entropy with the answers of the student's own moving average to other views, centred and sharpened.

    Both networks' outputs go through a head of their own (two layers, unit length, ``prototypes`` scores) into
    :class:`~kd_lightning.losses.self_distillation.CentredCrossViewLoss`. After each step the average moves:
    ``w_avg <- m w_avg + (1 - m) w`` with m rising from ``momentum`` to 1 by a cosine over the run; buffers (statistics of
    BatchNorm) are copied. Needs further views (``data.extra_views=1``, ``data.augment``), no teacher and no label.

    Args:
        prototypes: length of the heads' outputs, >= 2.
        hidden: width of the heads' hidden layer, >= 1.
        bottleneck: length of the vectors that are compared with the prototypes, >= 1.
        student_temperature, teacher_temperature: T_s, T_t > 0.
        warmup_temperature, warmup_epochs: T_t of the first epoch, and epochs until ``teacher_temperature``.
        momentum: m at the start, in [0, 1).
        centre_momentum: of the centre, in [0, 1).
    """

    needs_teacher = False
    requires: frozenset[str] = frozenset()

    def __init__(
        self,
        prototypes: int = 256,
        hidden: int = 256,
        bottleneck: int = 64,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_temperature: float = 0.04,
        warmup_epochs: int = 0,
        momentum: float = 0.99,
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {momentum}")
        if prototypes < 2 or min(hidden, bottleneck) < 1:
            raise UserError(
                f"a head needs prototypes >= 2, hidden and bottleneck >= 1, got {prototypes}, {hidden}, {bottleneck}"
            )
        self.momentum, self._sizes = float(momentum), (hidden, bottleneck, prototypes)
        self.loss = CentredCrossViewLoss(
            student_temperature, teacher_temperature, warmup_temperature, warmup_epochs, centre_momentum
        )
        self.head: nn.Module = nn.Identity()
        self.average = nn.ModuleDict()

    def prepare(self, student: ModelOutput, teacher: ModelOutput | None) -> None:
        """Build the heads for the student's outputs (N, D); a second call changes nothing."""
        if student.logits.dim() != 2:
            raise UserError(
                f"self-distillation takes one vector a sample, the student gives {tuple(student.logits.shape[1:])}"
            )
        if isinstance(self.head, nn.Identity):
            self.head = ViewHead(student.logits.shape[1], *self._sizes).to(student.logits.device)
            self.average["head"] = copy.deepcopy(self.head).requires_grad_(False)
            self.loss.centre = torch.zeros(1, self._sizes[2], device=student.logits.device)

    def bind(self, student_model: nn.Module, teacher_model: nn.Module | None) -> None:
        """Take the first copy of the student."""
        if "student" not in self.average:
            self.average["student"] = copy.deepcopy(student_model).requires_grad_(False)

    def forward(
        self, student: ModelOutput, teacher: ModelOutput | None, target: Any, views: Views, clock: Clock, batch: Batch
    ) -> Tensor:
        """Outputs (N, D) of each view; returns a scalar >= 0."""
        ours = [
            self.head(full_precision(student.logits)),
            *(self.head(full_precision(pair[0].logits)) for pair in views),
        ]
        average, head = self.average["student"], self.average["head"]
        average.train(self.training)
        with torch.no_grad():
            inputs = [batch.inputs, *(also.inputs for also in batch.also)]
            answers = [head(full_precision(as_model_output(ask(average, values)).logits)) for values in inputs]
        return self.loss.of_views(ours, answers, clock.epoch)

    @torch.no_grad()
    def after_step(self, student_model: nn.Module, clock: Clock) -> None:
        """Move the average towards the student."""
        done = min(1.0, clock.step / max(1, clock.total_steps))
        momentum = 1 - (1 - self.momentum) * (1 + torch.cos(torch.tensor(torch.pi * done)).item()) / 2
        for average, current in ((self.average["student"], student_model), (self.average["head"], self.head)):
            for mine, theirs in zip(average.parameters(), current.parameters(), strict=True):
                mine.lerp_(theirs.to(mine.dtype), 1 - momentum)
            for kept, newest in zip(average.buffers(), current.buffers(), strict=True):
                kept.copy_(newest)


class ViewHead(nn.Module):
    """Two layers, unit length, and cosines with prototypes."""

    def __init__(self, features: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs (N, D); returns cosines (N, prototypes)."""
        vectors = full_precision(self.layers(rows))
        with exactly(vectors):
            return F.normalize(vectors, dim=1) @ F.normalize(full_precision(self.prototypes), dim=1).T
