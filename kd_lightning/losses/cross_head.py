"""Cross-head distillation (CrossKD: Wang et al. 2024, arXiv:2306.11369): the student's map through the teacher's head.

::

    student:  inputs ── … ── map ── head ─► its own answer, compared with the labels
                             │
    teacher:                 └──► head ─► compared with what the teacher answers

What the teacher says of the student's map is pulled towards what it says of its own, so that imitation and labels do
not pull at one answer from two sides. The paper's heads are a detector's; any network's rest after a layer will do.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.losses.gradients import AsksTeacher
from kd_lightning.losses.inputs import paired_maps
from kd_lightning.losses.mixed import takes_mixed
from kd_lightning.outputs import ModelOutput, as_model_output


class CrossHeadLoss(AsksTeacher):
    """A loss on logits, of the teacher's answer with the student's map in place of its own.

    ``loss = term( h_t(A(f_s)), t )``: ``h_t`` what the teacher computes after ``layer``, t its logits, A a 1x1
    convolution where channels differ; height and width are interpolated to the teacher's. The teacher is asked a second
    time; of its weights none learns. (Equations 2 and 3 of the paper, whose detectors share the rest of the head.)

    Args:
        term: the loss on logits, for example SoftTargetLoss, or QualityFocalLoss for an answer of yes or no per class.
        layer: the teacher's layer whose output gives way, the one of the teacher's tap.
        tap: of the map, for both models.
    """

    requires = frozenset({"logits", "features"})

    def __init__(self, term: nn.Module, layer: str, tap: str = "hint") -> None:
        super().__init__()
        self.term, self.layer, self.tap = term, layer, tap
        self.adapter: nn.Module | None = None

    @property
    def takes_mixed(self) -> bool:
        """Whether the term does."""
        return takes_mixed(self.term)

    def bind(self, student_model: nn.Module, teacher_model: nn.Module | None) -> None:
        """Take both models; the teacher's weights learn nothing from here on."""
        super().bind(student_model, teacher_model)
        self._models[1].requires_grad_(False)
        if self.layer not in dict(self._models[1].named_modules()):
            raise UserError(f"method.terms: layer {self.layer!r}: the teacher has no such layer (kd-layers shows them)")

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = paired_maps(student, teacher, self.tap)
            alike = guided.shape[1] == hint.shape[1]
            self.adapter = nn.Identity() if alike else nn.Conv2d(guided.shape[1], hint.shape[1], 1).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, batch: Batch) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns what the term does, a scalar."""
        if self.adapter is None:
            raise RuntimeError("CrossHeadLoss has no adapter yet: call prepare(student, teacher) with examples first")
        guided, hint = paired_maps(student, teacher, self.tap)
        guided = self.adapter(guided)
        if guided.shape[2:] != hint.shape[2:]:
            guided = F.interpolate(guided, hint.shape[2:], mode="bilinear", align_corners=False)
        loss: Tensor = self.term(self._crossed(batch.inputs, guided), teacher, target)
        return loss

    def _crossed(self, inputs: Any, guided: Tensor) -> ModelOutput:
        """The teacher's answer with ``guided`` as the output of its layer."""
        ran: list[Tensor] = []

        def instead(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
            if not isinstance(output, Tensor) or output.shape != guided.shape:
                raise UserError(
                    f"method.terms: layer {self.layer!r} gives {tuple(getattr(output, 'shape', ()))}, the teacher's tap "
                    f"{self.tap!r} {tuple(guided.shape)}: name one layer in method.taps.teacher and as the term's layer"
                )
            ran.append(output)
            return guided.to(output.dtype)

        handle = dict(self._models[1].named_modules())[self.layer].register_forward_hook(instead)
        try:
            answer = as_model_output(ask(self._models[1], inputs))
        finally:
            handle.remove()
        if not ran:
            raise UserError(f"method.terms: layer {self.layer!r} of the teacher did not run in its forward pass")
        return answer
