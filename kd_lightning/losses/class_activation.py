"""Class attention transfer (CAT-KD: Guo et al. 2023, arXiv:2304.12777): look where the teacher looks for each class.

A network that ends in a 1x1 convolution to the classes and a mean has a map for each class: where it finds evidence.
One that ends in a mean and a linear layer has the same maps, once the layer is applied at each position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.heads import classifier_of
from kd_lightning.losses.inputs import exactly, full_precision, paired_features
from kd_lightning.outputs import ModelOutput


class ClassActivationLoss(nn.Module):
    """Mean squared difference of the classes' activation maps, averaged down and normalised.

    ``loss = mean ( A(f_s) - A(f_t) )^2`` over samples, classes and positions, A the mean over an r x r grid, each
    class's map over its Euclidean norm. A map of zeros stays zeros.

    Args:
        tap: of maps (N, C, H, W) with a channel for each class, for both models.
        resolution: r, >= 1.
        normalise: divide each map by its norm.
        binarise: of the teacher, only where a map is above the mean of its absolute values.
        top_k: the mean over the maps of the teacher's k likeliest classes only; None: over all. (The authors' code keeps
            n - 1 of the n that it is asked for, by a strict comparison.)
    """

    takes_mixed = True

    def __init__(
        self,
        tap: str = "maps",
        resolution: int = 2,
        normalise: bool = True,
        binarise: bool = False,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        if resolution < 1 or (top_k is not None and top_k < 1):
            raise UserError(f"resolution and top_k must be >= 1, got {resolution} and {top_k}")
        self.tap, self.resolution, self.normalise = tap, resolution, normalise
        self.binarise, self.top_k = binarise, top_k

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        ours, theirs = self._class_maps(student, teacher)
        if ours.ndim != 4 or theirs.ndim != 4 or ours.shape[1] != theirs.shape[1]:
            raise UserError(
                f"tap {self.tap!r}: class activation needs maps (N, C, H, W) with a channel for each class from both, "
                f"got {tuple(ours.shape)} and {tuple(theirs.shape)}"
            )
        if self.binarise:
            theirs = (theirs > theirs.abs().mean(dim=(2, 3), keepdim=True)).to(theirs.dtype)
        ours, theirs = (F.adaptive_avg_pool2d(maps, self.resolution) for maps in (ours, theirs))
        if self.normalise:
            ours, theirs = (F.normalize(maps.flatten(2), dim=2) for maps in (ours, theirs))
        difference = (ours - theirs).square().flatten(2)
        if self.top_k is None:
            return difference.mean()
        kept = torch.zeros_like(teacher.logits, dtype=torch.bool)
        kept = kept.scatter(1, teacher.logits.topk(min(self.top_k, kept.shape[1]), dim=1).indices, True)
        return (difference * kept[:, :, None]).sum() / (kept.sum() * difference.shape[2])

    def _class_maps(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        return paired_features(student, teacher, self.tap)


class ClassifiedActivationLoss(ClassActivationLoss):
    """:class:`ClassActivationLoss` of networks that end in a mean and a linear layer: the layer is applied at each position.

    ``loss = mean ( A(W_s f_s + b_s) - A(W_t f_t + b_t) )^2``, W and b of each model's own last linear layer
    (:meth:`bind`). The mean of ``W f + b`` over the positions are the model's logits: what the authors rebuild their
    networks for is true of these as they are.

    Args:
        tap: of the map before the mean, (N, D, H, W), for both models; D the inputs of its classifier.
        resolution, normalise, binarise, top_k: of :class:`ClassActivationLoss`.
    """

    requires = frozenset({"logits", "features"})
    _classifiers: tuple[nn.Linear, ...] = ()  # which hides them from this module's parameters

    def bind(self, student_model: nn.Module, teacher_model: nn.Module) -> None:
        """Take both models' classifiers."""
        self._classifiers = (classifier_of(student_model, "student"), classifier_of(teacher_model, "teacher"))

    def _class_maps(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        if not self._classifiers:
            raise RuntimeError("ClassifiedActivationLoss has no classifiers yet: call bind first")
        ours, theirs = (
            self._at_each_position(classifier, maps)
            for classifier, maps in zip(self._classifiers, paired_features(student, teacher, self.tap), strict=True)
        )
        return ours, theirs.detach()

    def _at_each_position(self, classifier: nn.Linear, maps: Tensor) -> Tensor:
        if maps.ndim != 4 or maps.shape[1] != classifier.in_features:
            raise UserError(
                f"tap {self.tap!r}: class activation needs the map (N, {classifier.in_features}, H, W) whose mean the "
                f"classifier takes, got {tuple(maps.shape)}"
            )
        bias = None if classifier.bias is None else full_precision(classifier.bias)
        with exactly(maps):
            return F.linear(maps.movedim(1, 3), full_precision(classifier.weight), bias).movedim(3, 1)
