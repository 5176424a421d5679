"""Hint training (FitNets: Romero et al. 2015, arXiv:1412.6550): regress a hidden layer of the teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import adapter_between, of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_features
from kd_lightning.outputs import ModelOutput

DISTANCES = ("squared", "absolute")


class HintLoss(nn.Module):
    """Mean squared difference of the teacher's feature (the hint) and the student's (the guided layer), adapted.

    ``loss = mean (adapter(f_s) - f_t)^2`` over samples, channels and positions. The adapter maps the student's channels
    to the teacher's: 1x1 convolution, BatchNorm, ReLU for maps, linear layer and ReLU for vectors; it is built by
    :meth:`prepare`, trained with the student, and not part of the exported student.

    Where height and width differ, the larger map is averaged down to the smaller. (RepDistiller halves or doubles
    them with a strided or a transposed convolution instead: ``resize: learned``, for a factor of exactly 2 only.) The paper
    trains the hint in a first stage and soft targets in a second; here, as in later comparisons, both are one sum.

    Args:
        tap: name of the tap, for both models.
        adapter: False compares the features as they are, which needs equal numbers of channels.
        batch_norm: normalise maps in the adapter.
        relu: end the adapter with a ReLU; None does so if the teacher's example holds no negative value.
        distance: "squared", or "absolute": ``mean |adapter(f_s) - f_t|``.
        resize: "average", or "learned": the adapter's convolution halves or doubles height and width.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self,
        tap: str = "hint",
        adapter: bool = True,
        batch_norm: bool = True,
        relu: bool | None = None,
        distance: str = "squared",
        resize: str = "average",
    ) -> None:
        super().__init__()
        if resize not in ("average", "learned"):
            raise UserError(f"resize must be average or learned, got {resize!r}")
        self.resize = resize
        if distance not in DISTANCES:
            raise UserError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
        self.distance = distance
        self.tap = tap
        self.adapter: nn.Module | None = None if adapter else nn.Identity()
        self._batch_norm = batch_norm
        self._relu = relu

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = paired_features(student, teacher, self.tap)
            relu = bool((hint >= 0).all()) if self._relu is None else self._relu
            self.adapter = adapter_between(guided, hint, self._batch_norm, relu, self.resize == "learned")

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, C, H, W), (N, L, D) or (N, D) under the tap's name; returns a scalar >= 0."""
        if self.adapter is None:
            raise RuntimeError("HintLoss has no adapter yet: call prepare(student, teacher) with example outputs first")
        guided, hint = paired_features(student, teacher, self.tap)
        if self.resize == "average":
            guided, hint = of_equal_size(guided, hint)
        guided = full_precision(self.adapter(guided))
        if guided.shape != hint.shape:
            raise UserError(
                f"tap {self.tap!r}: the student's feature of shape {tuple(guided.shape)} does not fit the teacher's "
                f"{tuple(hint.shape)}: {self._remedy()}"
            )
        return F.mse_loss(guided, hint) if self.distance == "squared" else F.l1_loss(guided, hint)

    def _remedy(self) -> str:
        if isinstance(self.adapter, nn.Identity):
            return "tap layers of the same kind and length, or set adapter: true"
        return "an adapter maps the last dimension of token sequences (N, L, D), not their length L: tap layers of equal length"

    def extra_repr(self) -> str:
        return f"tap={self.tap!r}"
