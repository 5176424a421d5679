"""Learned maps from the student's feature space to the teacher's: shapes are read off an example, never configured."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError


def adapter_between(
    student: Tensor, teacher: Tensor, batch_norm: bool, relu: bool, resizing: bool = False
) -> nn.Sequential:
    """An adapter whose output has the teacher's number of channels.

    Maps (N, C, H, W) get a 1x1 convolution, with BatchNorm if asked for; vectors (N, D) and token sequences (N, L, D) a
    linear layer. It never changes height and width: :func:`of_equal_size` does that for both sides.

    Args:
        student: an example of the student's feature.
        teacher: an example of the teacher's feature, with as many dimensions.
        batch_norm: normalise maps after the convolution.
        relu: end with a ReLU, for teachers' features that are never negative.
        resizing: a strided convolution halves, a transposed one doubles height and width where they differ by that.
    """
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4):
        raise UserError(
            f"cannot adapt a student's feature of shape {tuple(student.shape)} to a teacher's of "
            f"{tuple(teacher.shape)}: tap two maps (N, C, H, W), two token sequences (N, L, D) or two vectors (N, D)"
        )
    layers: list[nn.Module] = []
    if student.ndim == 4:
        layers.append(
            _resizing(student, teacher) if resizing else nn.Conv2d(student.shape[1], teacher.shape[1], kernel_size=1)
        )
        if batch_norm:
            layers.append(nn.BatchNorm2d(teacher.shape[1]))
    else:
        layers.append(nn.Linear(student.shape[-1], teacher.shape[-1]))
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers).to(student.device)


def _resizing(student: Tensor, teacher: Tensor) -> nn.Module:
    (ours, theirs), channels = (student.shape[2:], teacher.shape[2:]), (student.shape[1], teacher.shape[1])
    if ours == theirs:
        return nn.Conv2d(*channels, kernel_size=1)
    if all(a == 2 * b for a, b in zip(ours, theirs, strict=True)):
        return nn.Conv2d(*channels, kernel_size=3, stride=2, padding=1)
    if all(2 * a == b for a, b in zip(ours, theirs, strict=True)):
        return nn.ConvTranspose2d(*channels, kernel_size=4, stride=2, padding=1)
    raise UserError(
        f"resize=learned fits height and width that are equal, half or double: the student's are {tuple(ours)}, the "
        f"teacher's {tuple(theirs)}: take resize=average"
    )


def bottleneck_between(student: Tensor, teacher: Tensor, width: int) -> nn.Sequential:
    """1x1, 3x3 and 1x1 convolutions over ``width`` channels, BatchNorm and ReLU: maps of the teacher's channels."""
    return nn.Sequential(
        nn.Conv2d(student.shape[1], width, 1), nn.Conv2d(width, width, 3, padding=1),
        nn.Conv2d(width, teacher.shape[1], 1), nn.BatchNorm2d(teacher.shape[1]), nn.ReLU(),
    ).to(student.device)  # fmt: skip


def of_equal_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (N, C, H, W) at the smaller one's height and width, the larger averaged down; others as they are."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
