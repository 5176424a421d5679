"""Softmax regression of representations (SRRL: Yang et al. 2021, ICLR): judge the student's feature by the teacher's head.

A feature is as good as the teacher's if the teacher's own classifier says the same of both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.heads import classifier_of
from kd_lightning.losses.inputs import as_reference, full_precision, paired_features
from kd_lightning.outputs import ModelOutput


class RegressedRepresentationLoss(nn.Module):
    """Feature matching, and the teacher's classifier on the student's adapted feature.

    ``loss = alpha mean ( pool(A(f_s)) - pool(f_t) )^2 + beta mean ( h_t(pool(A(f_s))) - t )^2``: A a 1x1 convolution
    with BatchNorm and ReLU, ``h_t`` the teacher's last linear layer (:meth:`bind`), frozen, t its logits.

    Args:
        tap: of the map before the global mean, for both models.
        alpha, beta: weights of the two parts, >= 0.
    """

    takes_mixed = True
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, tap: str = "maps", alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.tap, self.alpha, self.beta = tap, float(alpha), float(beta)
        self.adapter: nn.Module | None = None
        self.register_buffer("weight", None)
        self.register_buffer("bias", None)

    def bind(self, student_model: nn.Module, teacher_model: nn.Module) -> None:
        """Take the teacher's classifier; a second call changes nothing."""
        if self.weight is None:
            classifier = classifier_of(teacher_model, "teacher")
            self.weight = classifier.weight.detach().clone()
            bias = classifier.bias
            self.bias = torch.zeros(len(self.weight)).to(self.weight) if bias is None else bias.detach().clone()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = paired_features(student, teacher, self.tap)
            if guided.ndim != 4 or hint.ndim != 4:
                raise UserError(f"tap {self.tap!r}: SRRL needs the maps (N, C, H, W) before the global mean")
            self.adapter = nn.Sequential(
                nn.Conv2d(guided.shape[1], hint.shape[1], 1, bias=False), nn.BatchNorm2d(hint.shape[1]), nn.ReLU()
            ).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name and the teacher's logits (N, C); returns a scalar >= 0."""
        if self.adapter is None or self.weight is None or self.bias is None:
            raise RuntimeError("RegressedRepresentationLoss is not ready: call bind() and prepare() first")
        guided, hint = paired_features(student, teacher, self.tap)
        ours, theirs = full_precision(self.adapter(guided)).mean(dim=(2, 3)), hint.mean(dim=(2, 3))
        if self.weight.shape[1] != ours.shape[1]:
            raise UserError(
                f"tap {self.tap!r}: {ours.shape[1]} channels do not fit the classifier's {self.weight.shape[1]}"
            )
        logits = F.linear(ours, self.weight.to(ours.dtype), self.bias.to(ours.dtype))
        return self.alpha * F.mse_loss(ours, theirs) + self.beta * F.mse_loss(logits, as_reference(teacher.logits))
