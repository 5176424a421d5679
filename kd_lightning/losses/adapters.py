"""Learned maps from the student's feature space to the teacher's: shapes are read off an example, never configured."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError


def adapter_between(student: Tensor, teacher: Tensor, batch_norm: bool, relu: bool) -> nn.Sequential:
    """An adapter whose output has the teacher's number of channels.

    Maps (N, C, H, W) get a 1x1 convolution, with BatchNorm if asked for; vectors (N, D) and token sequences (N, L, D) a
    linear layer. It never changes height and width: :func:`of_equal_size` does that for both sides.

    Args:
        student: an example of the student's feature.
        teacher: an example of the teacher's feature, with as many dimensions.
        batch_norm: normalise maps after the convolution.
        relu: end with a ReLU, for teachers' features that are never negative.
    """
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4):
        raise UserError(
            f"cannot adapt a student's feature of shape {tuple(student.shape)} to a teacher's of "
            f"{tuple(teacher.shape)}: tap two maps (N, C, H, W), two token sequences (N, L, D) or two vectors (N, D)"
        )
    layers: list[nn.Module] = []
    if student.ndim == 4:
        layers.append(nn.Conv2d(student.shape[1], teacher.shape[1], kernel_size=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(teacher.shape[1]))
    else:
        layers.append(nn.Linear(student.shape[-1], teacher.shape[-1]))
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers).to(student.device)


def of_equal_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (N, C, H, W) at the smaller one's height and width, the larger averaged down; others as they are."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
