"""Attended features (AFD: Ji, Heo & Park 2021, AAAI, arXiv:2102.02973): every teacher layer asks all student layers.

How much a student's layer learns from a teacher's is an attention weight, learned from the two layers' means; what is
compared is where both look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.attention import attention_map
from kd_lightning.losses.inputs import MAPS_TO_TAP, as_reference, full_precision
from kd_lightning.outputs import ModelOutput


class AttendedFeatureLoss(nn.Module):
    """Differences of attention maps, weighed by a learned attention of teacher layers to student layers.

    ``loss = mean_n sum_t sum_s a_nts | q(f_t) - q(f_s) |_2`` with ``q`` the mean over channels of ``f^2`` as a unit
    vector over positions (the student's resized to the teacher's height and width) and ``a_nt`` a softmax over s of
    ``( Q_t(mean f_t) . W K_s(mean f_s) + p_t . p_s ) / sqrt(d)``, eq. 1 to 5; Q, K, W, p are learned. The authors' code
    averages the squared difference over positions instead of taking its norm.

    Args:
        taps: of the student; layers that give maps.
        teacher_taps: of the teacher.
        dimension: d of queries and keys, >= 1.
        form: "paper", or "authors_code": the mean squared difference.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self, taps: Sequence[str], teacher_taps: Sequence[str], dimension: int = 128, form: str = "paper"
    ) -> None:
        super().__init__()
        if not taps or not teacher_taps or dimension < 1:
            raise UserError(
                f"AFD needs taps of both models and dimension >= 1, got {taps}, {teacher_taps}, {dimension}"
            )
        if form not in ("paper", "authors_code"):
            raise UserError(f"form of AFD must be paper or authors_code, got {form!r}")
        self.taps, self.teacher_taps, self.dimension, self.form = list(taps), list(teacher_taps), dimension, form
        self.queries, self.keys = nn.ModuleList(), nn.ModuleList()
        self.bilinear = nn.Linear(dimension, dimension, bias=False)
        self.student_places = nn.Parameter(torch.randn(len(self.taps), dimension) * 0.02)
        self.teacher_places = nn.Parameter(torch.randn(len(self.teacher_taps), dimension) * 0.02)

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build queries and keys for the channels of these features; a second call changes nothing."""
        if len(self.queries):
            return
        for output, taps, made in ((teacher, self.teacher_taps, self.queries), (student, self.taps, self.keys)):
            for tap in taps:
                made.append(nn.Linear(_maps(output, tap).shape[1], self.dimension))
        self.to(student.logits.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name; returns a scalar >= 0."""
        if not len(self.queries):
            raise RuntimeError("AFD has no queries yet: call prepare(student, teacher) first")
        ours = [full_precision(_maps(student, tap)) for tap in self.taps]
        theirs = [as_reference(_maps(teacher, tap)) for tap in self.teacher_taps]
        weights = self._attention(ours, theirs)
        total = weights.new_zeros(len(weights))
        for t, hint in enumerate(theirs):
            expected = attention_map(hint, 2.0)
            for s, guided in enumerate(ours):
                difference = (attention_map(_resized(guided, hint), 2.0) - expected).square()
                if self.form == "paper":
                    squared = difference.sum(dim=1)  # the root has no gradient at 0
                    distance = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
                else:
                    distance = difference.mean(dim=1)
                total = total + weights[:, t, s] * distance
        return total.mean()

    def _attention(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """How much each student tap counts for each teacher tap of each sample: (N, T, S)."""
        queries = torch.stack([net(f.mean(dim=(2, 3))) for net, f in zip(self.queries, theirs, strict=True)], dim=1)
        keys = torch.stack([net(f.mean(dim=(2, 3))) for net, f in zip(self.keys, ours, strict=True)], dim=1)
        likeness = queries @ self.bilinear(keys).transpose(1, 2) + self.teacher_places @ self.student_places.T
        return full_precision(likeness / math.sqrt(self.dimension)).softmax(dim=2)


def _resized(maps: Tensor, other: Tensor) -> Tensor:
    """Maps at another's height and width: averaged down, or interpolated up."""
    size = other.shape[2:]
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(maps, (size[0], size[1]))
    return F.interpolate(maps, size=(size[0], size[1]), mode="nearest")


def _maps(output: ModelOutput, tap: str) -> Tensor:
    if tap not in output.features or output.features[tap].ndim != 4:
        raise UserError(f"AFD needs a map (N, C, H, W) at tap {tap!r}: {MAPS_TO_TAP}")
    return output.features[tap]
