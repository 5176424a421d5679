"""Stage heads (OFA-KD: Hao et al. 2023, arXiv:2310.19444): the student's hidden layers learn in the space of logits.

Features of unlike architectures cannot be compared; what they predict can. A small head on each tapped layer of the
student makes logits, which learn from the teacher's by the adaptive target of
:mod:`kd_lightning.losses.adaptive_target`. The heads are left behind on export.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adaptive_target import AdaptiveTargetLoss
from kd_lightning.losses.inputs import full_precision
from kd_lightning.outputs import ModelOutput


def separable(inner: int, outer: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolutions, twice, the first halving height and width: (N, inner, H, W) to
    (N, outer, H / 2, W / 2)."""
    layers: list[nn.Module] = []
    for after, stride in ((inner, 2), (outer, 1)):
        layers += [
            nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def stage_head(feature: Tensor, width: int, classes: int, smallest: int) -> nn.Sequential:
    """From a feature to logits.

    Maps are halved by :func:`separable` blocks, which double the channels, until they are as small as the smallest
    tapped one (a 1x1 convolution where they are already), the last block giving ``width`` channels; then the mean and a
    linear layer. Tokens (N, L, D) are averaged by the caller; vectors get a hidden layer of ``width``.
    """
    channels = feature.shape[1]
    if feature.ndim == 2:
        return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, classes))
    halvings = max(0, round(math.log2(feature.shape[-1] / smallest)))
    blocks: list[nn.Module] = [] if halvings else [nn.Conv2d(channels, width, 1)]
    for k in range(halvings):
        after = width if k == halvings - 1 else 2 * channels
        blocks.append(separable(channels, after))
        channels = after
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class StageHeadLoss(nn.Module):
    """Adaptive-target losses of the logits that heads make of the student's tapped layers, summed.

    ``loss = sum_k OFA( head_k(f_k), t ; eps_k )``. The authors' heads for transformers merge patches and add a class
    token; here tokens are averaged and go through one hidden layer.

    Args:
        taps: of the student, maps (N, C, H, W), tokens (N, L, D) or vectors (N, D).
        power: eps, >= 1: one number, or one for each tap.
        temperature: softening T, > 0.
        width: channels before each head's last layer; None: as many as the last tap has.
    """

    def __init__(
        self,
        taps: Sequence[str],
        power: float | Sequence[float] = 1.0,
        temperature: float = 1.0,
        width: int | None = None,
    ) -> None:
        super().__init__()
        powers = [float(power)] * len(taps) if isinstance(power, (int, float)) else [float(p) for p in power]
        if not taps or len(powers) != len(taps):
            raise UserError(f"stage heads need taps, and one power or one for each: got {list(taps)} and {powers}")
        if width is not None and width < 1:
            raise UserError(f"width of the stage heads must be >= 1, got {width}")
        self.taps, self.width = list(taps), width
        self.losses = nn.ModuleList(AdaptiveTargetLoss(p, temperature) for p in powers)
        self.heads = nn.ModuleList()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the heads for the shapes of these features; a second call changes nothing."""
        if len(self.heads):
            return
        features = [self._feature(student, tap) for tap in self.taps]
        width = self.width or features[-1].shape[1]
        smallest = min((f.shape[-1] for f in features if f.ndim == 4), default=1)
        for feature in features:
            self.heads.append(stage_head(feature, width, student.logits.shape[1], smallest).to(feature.device))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under each tap's name, the teacher's logits (N, C), target of shape (N,); returns a scalar >= 0."""
        if not len(self.heads):
            raise RuntimeError("StageHeadLoss has no heads yet: call prepare(student, teacher) first")
        total = student.logits.new_zeros((), dtype=full_precision(student.logits).dtype)
        for tap, head, loss in zip(self.taps, self.heads, self.losses, strict=True):
            logits = full_precision(head(self._feature(student, tap)))
            total = total + loss(ModelOutput(logits), teacher, target)
        return total

    @staticmethod
    def _feature(student: ModelOutput, tap: str) -> Tensor:
        if tap not in student.features:
            raise UserError(
                f"stage heads need the student's tap {tap!r}: set method.taps.student.{tap} to a layer's name"
            )
        feature = student.features[tap]
        if feature.ndim not in (2, 3, 4):
            raise UserError(f"tap {tap!r}: stage heads take maps, tokens or vectors, got {tuple(feature.shape)}")
        return feature.mean(dim=1) if feature.ndim == 3 else feature
