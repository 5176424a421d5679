"""Learned links between layers (SemCKD: Chen et al. 2021, arXiv:2012.03236): which teacher layer suits which student's.

Instead of pairs chosen by hand, every student layer is compared with every teacher layer; how much each pair counts is
learned, sample by sample, from how alike the layers see the batch's samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import MAPS_TO_TAP, as_reference, exactly, full_precision
from kd_lightning.outputs import ModelOutput


def _embedding(samples: int, factor: int) -> nn.Sequential:
    """Rows of a similarity matrix (N, N) to unit vectors (N, N / (2 factor))."""
    inner, outer = max(1, samples // factor), max(1, samples // (2 * factor))
    return nn.Sequential(nn.Linear(samples, inner), nn.ReLU(), nn.Linear(inner, outer))


class SemanticLinkLoss(nn.Module):
    """Weighted squared differences of every pair of taps.

    ``loss = sum_kl mean_n a_nkl mean (A_kl(f_k) - f_l)^2 / (N K)``: ``A_kl`` maps the k-th student map to the l-th
    teacher map's channels and size, ``a_n`` is a softmax over teacher taps of the products of learned unit embeddings
    of the sample's row in the batch's similarity matrices. Rows have the length of a full batch; in a smaller one, the
    last of an epoch, what is missing counts as like nothing (0). The authors skip such a batch whole.

    Args:
        taps: of the student, from shallow to deep.
        teacher_taps: of the teacher.
        batch_size: training samples a step at most: ``${data.batch_size}``.
        factor: division of the embeddings' width, >= 1.
        temperature: softening of the attention, > 0.
    """

    takes_mixed = True

    requires = frozenset({"features"})

    def __init__(
        self,
        taps: Sequence[str],
        teacher_taps: Sequence[str],
        batch_size: int,
        factor: int = 4,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not taps or not teacher_taps:
            raise UserError("SemanticLinkLoss needs taps of both models: set taps and teacher_taps")
        self.taps, self.teacher_taps = list(taps), list(teacher_taps)
        self.batch_size, self.temperature = batch_size, float(temperature)
        self.queries = nn.ModuleList(_embedding(batch_size, factor) for _ in self.taps)
        self.keys = nn.ModuleList(_embedding(batch_size, factor) for _ in self.teacher_taps)
        self.adapters = nn.ModuleList()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapters for the shapes of these features; a second call changes nothing."""
        if len(self.adapters):
            return
        for tap in self.taps:
            for hint in self.teacher_taps:
                inside, outside = self._of(student, tap).shape[1], self._of(teacher, hint).shape[1]
                wide = 2 * outside
                adapter = nn.Sequential(
                    nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
                    nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
                    nn.Conv2d(wide, outside, 1, bias=False),
                )  # fmt: skip
                self.adapters.append(adapter.to(student.logits.device))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name, N the batch size given or less; returns a scalar >= 0."""
        if not len(self.adapters):
            raise RuntimeError("SemanticLinkLoss has no adapters yet: call prepare(student, teacher) first")
        ours = [self._of(student, tap) for tap in self.taps]
        theirs = [as_reference(self._of(teacher, tap)) for tap in self.teacher_taps]
        if len(ours[0]) > self.batch_size:
            raise UserError(
                f"SemanticLinkLoss was made for batches of {self.batch_size}, got {len(ours[0])}: set its batch_size"
            )
        weights = self._attention(ours, theirs)
        total = weights.new_zeros(())
        for k, guided in enumerate(ours):
            for hint_number, hint in enumerate(theirs):
                pooled, expected = of_equal_size(guided, hint)
                mapped = full_precision(self.adapters[k * len(theirs) + hint_number](pooled))
                errors = (mapped - expected).square().flatten(1).mean(dim=1)
                total = total + (errors * weights[:, k, hint_number]).sum()
        return total / (len(ours[0]) * len(ours))

    def _attention(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """How much each teacher tap counts for each student tap of each sample: (N, K, L)."""
        with exactly(ours[0]):
            queries = self._embedded(ours, self.queries)
            keys = self._embedded(theirs, self.keys)
            return ((queries @ keys.transpose(1, 2)) / self.temperature).softmax(dim=2)

    def _embedded(self, features: list[Tensor], embeddings: nn.ModuleList) -> Tensor:
        rows = [full_precision(values).flatten(1) for values in features]
        missing = self.batch_size - len(rows[0])
        embedded = [net(F.pad(row @ row.T, (0, missing))) for net, row in zip(embeddings, rows, strict=True)]
        return torch.stack([F.normalize(values, dim=1) for values in embedded], dim=1)

    @staticmethod
    def _of(output: ModelOutput, tap: str) -> Tensor:
        if tap not in output.features or output.features[tap].ndim != 4:
            raise UserError(f"SemanticLinkLoss needs a map (N, C, H, W) at tap {tap!r}: {MAPS_TO_TAP}")
        return output.features[tap]
