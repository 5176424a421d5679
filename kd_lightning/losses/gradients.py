"""Teachers' derivatives: where a decision comes from (LwM), and how it changes with the input (Sobolev training).

Both ask the teacher's network itself, with gradients, on the batch's inputs: twice a teacher's cost, and stored answers
do not do. The teacher's weights learn nothing: only its inputs and layers are differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers
from kd_lightning.losses.inputs import as_reference, exactly, full_precision, require_rows
from kd_lightning.outputs import ModelOutput, as_model_output


def class_map(logits: Tensor, maps: Tensor, numbers: Tensor) -> Tensor:
    """Grad-CAM of a class in each sample's map (N, C, H, W), of length 1 over positions: (N, H W).

    Channels count as much as the class's logit grows with their mean; what speaks against the class is left out.
    """
    chosen = logits.gather(1, numbers[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, maps, create_graph=True, allow_unused=True)
    if gradient is None:
        raise UserError(
            "LwM differentiates by what the tapped layer gives, and this map is not that, or not what the answer is made of: "
            "tap a convolutional layer, not tokens as a map nor channels behind"
        )
    weights = full_precision(gradient).mean(dim=(2, 3), keepdim=True)
    found: Tensor = F.relu((weights * full_precision(maps)).sum(dim=1))
    return F.normalize(found.flatten(1), dim=1)


class AsksTeacher(nn.Module):
    """Keeps both models, beside its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self._models: list[nn.Module] = []  # a list hides them from this module's parameters
        self._compared = False

    def bind(self, student_model: nn.Module, teacher_model: nn.Module | None) -> None:
        """Take both models."""
        if teacher_model is None:
            raise UserError("this loss asks the teacher itself: it needs one that is a single network")
        self._models = [student_model, teacher_model]

    def _same_as(self, given: Tensor, answered: Tensor) -> None:
        """Once: what the network says of the batch must be what the teacher said, or it sees other inputs."""
        if self._compared:
            return
        self._compared = True
        difference = float((as_reference(given) - full_precision(answered.detach())).abs().max())
        if not difference <= 0.05 * float(given.abs().max()) + 1e-3:
            raise UserError(
                "this loss shows the batch to the teacher's network as it is, and the teacher answers otherwise: it must "
                "take the data's own images and classes (teacher.normalization, image_size, classes and outputs unset)"
            )


class ClassMapLoss(AsksTeacher):
    """Mean absolute difference of the true class's Grad-CAMs (Learning without Memorizing: Dhar et al. 2019,
    arXiv:1811.08051, eq. 4).

    ``loss = mean_{i,hw} | M_i(student) - M_i(teacher) |``, M as :func:`class_map` has it; samples without a label: the
    teacher's decision. The larger map is averaged down before it is normalised.

    Args:
        layer: the teacher's layer that gives a map (N, C, H, W), by its name in the network.
        tap: of the student's map.
    """

    requires = frozenset({"logits"})
    differentiates = True

    def __init__(self, layer: str, tap: str = "maps") -> None:
        super().__init__()
        self.tap, self.layer = tap, layer

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, batch: Batch) -> Tensor:
        """Maps (N, C, H, W) under the tap's name in the student's output; returns a scalar >= 0."""
        maps = student.features.get(self.tap)
        if maps is None or maps.ndim != 4:
            raise UserError(
                f"LwM needs a map (N, C, H, W) at the student's tap {self.tap!r}: tap a convolutional layer"
            )
        require_rows(student.logits, "LwM")
        numbers = class_numbers(target)
        numbers = torch.where(numbers >= 0, numbers, teacher.logits.argmax(dim=1))
        with torch.enable_grad(), exactly(maps):
            hint, logits = self._teachers(batch.inputs)
            self._same_as(teacher.logits, logits)
            theirs = class_map(logits, hint, numbers).detach()
        ours = class_map(student.logits, maps, numbers)
        return self._mean_difference(ours, maps, theirs, hint)

    def _teachers(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The teacher's map, as a leaf of a graph, and its logits."""
        kept: list[Tensor] = []

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1]

        modules = dict(self._models[1].named_modules())
        if self.layer not in modules:
            raise UserError(f"method.terms: layer {self.layer!r}: the teacher has no such layer (kd-layers shows them)")
        handle = modules[self.layer].register_forward_hook(hook)
        try:
            logits = as_model_output(ask(self._models[1], inputs)).logits
        finally:
            handle.remove()
        if not kept or kept[-1].ndim != 4:
            raise UserError(f"LwM needs a map (N, C, H, W) from the teacher's layer {self.layer!r}")
        return kept[-1], logits

    @staticmethod
    def _mean_difference(ours: Tensor, maps: Tensor, theirs: Tensor, hint: Tensor) -> Tensor:
        if maps.shape[2:] != hint.shape[2:]:
            size = (min(maps.shape[2], hint.shape[2]), min(maps.shape[3], hint.shape[3]))
            ours, theirs = (
                F.normalize(F.adaptive_avg_pool2d(x.unflatten(1, f.shape[2:])[:, None], size).flatten(1), dim=1)
                for x, f in ((ours, maps), (theirs, hint))
            )
        return F.l1_loss(ours, theirs)


class InputGradientLoss(AsksTeacher):
    """Squared difference of the models' derivatives by the input (Sobolev training: Czarnecki et al. 2017,
    arXiv:1706.04859; Jacobian matching: Srinivas & Fleuret 2018, arXiv:1803.00443).

    ``loss = mean_i | g_i(student) - g_i(teacher) |^2``, g the gradient by the input of the true class's logit
    (``of: "true_class"``; without a label the teacher's class) or of the logits along a random unit vector that both
    models share (``of: "random"``, the paper's stochastic form); ``normalise`` makes each g of length 1. The student is
    asked a second time, in eval mode, so that no running statistic is counted twice.

    Args:
        of: what is differentiated.
        normalise: compare directions only.
    """

    requires = frozenset({"logits"})

    def __init__(self, of: str = "true_class", normalise: bool = True) -> None:
        super().__init__()
        if of not in ("true_class", "random"):
            raise UserError(f"of must be true_class or random, got {of!r}")
        self.of, self.normalise = of, normalise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, batch: Batch) -> Tensor:
        """Inputs that are one tensor of real numbers; returns a scalar >= 0."""
        if not isinstance(batch.inputs, Tensor) or not batch.inputs.is_floating_point():
            raise UserError("Sobolev training differentiates by the inputs: they must be one tensor of real numbers")
        logits = full_precision(teacher.logits)
        if self.of == "random":
            vector = F.normalize(torch.randn(logits.shape[1], device=logits.device, dtype=logits.dtype), dim=0)
            along = vector.expand_as(logits)
        else:
            numbers = class_numbers(target)
            numbers = torch.where(numbers >= 0, numbers, logits.argmax(dim=1))
            along = F.one_hot(numbers, logits.shape[1]).to(logits.dtype)
        with torch.enable_grad(), exactly(logits):
            theirs, answered = self._gradient(self._models[1], batch.inputs, along, create_graph=False)
            self._same_as(teacher.logits, answered)
            model = self._models[0]
            training = [module for module in model.modules() if module.training]
            try:
                with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
                    ours, _ = self._gradient(model.eval(), batch.inputs, along, create_graph=True)
            finally:
                for module in training:
                    module.training = True
        return (ours - theirs.detach()).square().sum(dim=1).mean()

    def _gradient(self, model: nn.Module, inputs: Tensor, along: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
        leaf = inputs.detach().requires_grad_()
        logits = as_model_output(ask(model, leaf)).logits
        (gradient,) = torch.autograd.grad((logits * along).sum(), leaf, create_graph=create_graph)
        rows = full_precision(gradient).flatten(1)
        return (F.normalize(rows, dim=1) if self.normalise else rows), logits
