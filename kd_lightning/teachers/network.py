"""What teachers that are networks have in common: how their forward pass runs, and a first try before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask, inputs_hint
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, LOGITS, Teacher
from kd_lightning.outputs import ModelOutput, as_model_output, looks_like_probabilities
from kd_lightning.teachers.class_names import require_different
from kd_lightning.teachers.frozen import FrozenTeacher
from kd_lightning.teachers.inputs import Normalization, normalization_doubt, resized
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.preprocessing import other_normalization, trained_with
from kd_lightning.teachers.samples import tensors_of

log = logging.getLogger(__name__)


class NetworkTeacher:
    """A network, frozen. Subclasses say where its weights come from (:meth:`fill`).

    Args:
        model: the network's ``_target_`` and arguments; None: no teacher.
        normalization: mean and std it was trained with, per channel, where they are not the data's.
        precision: of its forward pass.
        channels_last: memory format of images and weights.
        compile: run it through ``torch.compile``.
        classes: which of its classes are the data's, in the data's order; None: those of the data's names, where the model
            has ``class_names``, else its classes are the data's.
        outputs: what it returns: logits, probabilities (it ends in a softmax), or values in the data's units (a
            regression's answers are otherwise taken for standardised ones, as networks trained here give).
        image_size: pixels of a side of the images that it takes, where the data's are of another size.
    """

    labels_new_inputs = True

    def __init__(
        self,
        model: Mapping[str, Any] | None,
        normalization: Normalization | None = None,
        precision: Literal["32", 32, "bf16", "fp16"] = "32",
        channels_last: bool = False,
        compile: bool = False,
        classes: Sequence[int] | None = None,
        outputs: Literal["logits", "probabilities", "values"] = "logits",
        image_size: int | None = None,
    ) -> None:
        if classes is not None and (not len(classes) or min(classes) < 0):
            raise UserError(f"teacher.classes: needs a class number >= 0 for each class of the data, got {classes}")
        require_different(classes)
        if image_size is not None and image_size < 1:
            raise UserError(f"teacher.image_size must be >= 1, or null for the data's, got {image_size}")
        self.model = model
        self.normalization, self.precision, self.outputs = normalization, str(precision), outputs
        self.channels_last, self.compile = channels_last, compile
        self.classes = None if classes is None else list(classes)
        self.image_size = image_size

    @property
    def provides(self) -> frozenset[str]:
        return frozenset() if self.model is None else frozenset({LOGITS, FEATURES})

    def make(self, context: TeacherContext) -> Teacher | None:
        """Build the network, try it on a few samples, fill in its weights, freeze it."""
        if self.model is None:
            return None
        module = context.build_model(self.model, image_size=self.image_size)
        module.eval()
        if self.classes is None:
            self.classes = classes_by_name(module, context)
        provides = self._try_out(module, context)
        origin = self.fill(module, context)
        origin |= self._told_normalization(module, origin, context)
        teacher = self._frozen(module, context, provides, origin)
        self._require_numbers(teacher, context)
        return teacher

    def _told_normalization(
        self, module: nn.Module, origin: Mapping[str, Any], context: TeacherContext
    ) -> dict[str, str]:
        """Warn where its weights are known to have seen other inputs; ``result.json`` keeps it as ``normalised``."""
        if context.trial or self.model is None:
            return {}
        inputs, data = context.datamodule.example_batch().inputs, data_normalization(context)
        known = trained_with(origin, module, self.model)
        told = other_normalization(known, self.normalization, data, inputs, context.where)
        if told is None:
            return {}
        log.warning("WARNING: teacher %s: %s", context.name, told)
        return {"normalised": told}

    def fill(self, module: nn.Module, context: TeacherContext) -> dict[str, Any]:
        """Give the network its weights; returns what ``result.json`` says of where they come from."""
        return {}

    def _frozen(
        self, module: nn.Module, context: TeacherContext, provides: frozenset[str], origin: Mapping[str, Any]
    ) -> FrozenTeacher:
        return FrozenTeacher(
            module,
            normalization=self.normalization,
            data_normalization=data_normalization(context),
            taps={layer: layer for layer in sorted(context.layers)},
            precision=self.precision,
            channels_last=self.channels_last,
            compile=self.compile,
            classes=self.classes,
            outputs=self.outputs,
            image_size=self.image_size,
            provides=provides,
            read=partial(self._read, context, origin.get("fitted")),
            read_by=self._read_by(context, origin.get("fitted")),
            origin=origin,
            name=context.name,
        )

    def _read(self, context: TeacherContext, fitted: Mapping[str, Any] | None, output: ModelOutput) -> ModelOutput:
        """An answer as the task reads it, in the units of the student's task; ``fitted`` of the teacher's own training."""
        output = context.task.read(output)
        if self.outputs == "values":
            return replace(output, logits=context.task.encode(output.logits))
        return context.task.recode(output, fitted) if fitted else output

    def _read_by(self, context: TeacherContext, fitted: Mapping[str, Any] | None) -> dict[str, Any]:
        own = context.task.fitted()
        return {"task": context.config["task"], "fitted": own, "own": fitted} if own else {}

    def _try_out(self, module: nn.Module, context: TeacherContext) -> frozenset[str]:
        """Answer a few samples with whatever weights there are: what does not fit is told before it is trained."""
        batch = context.datamodule.example_batch()
        doubt = None if self.normalization is None else normalization_doubt(batch.inputs, data_normalization(context))
        if doubt and not context.trial:
            log.warning(
                "WARNING: %s.normalization: the data's inputs %s: give data.mean and data.std, by which your data set normalised "
                "them, or set %s.normalization=null, or the teacher's inputs are normalised wrongly",
                context.where,
                doubt,
                context.where,
            )
        output = self._first_answer(module, batch, context)
        if self.outputs == "logits" and looks_like_probabilities(output.logits) and not context.trial:
            log.warning(
                "WARNING: teacher %s: its outputs look like probabilities (each sample's are >= 0 and sum to 1), and they are "
                "taken for logits: if the model ends in a softmax, set %s.outputs=probabilities",
                context.name,
                context.where,
            )
        logits = output.logits
        if self.classes is not None:
            known = logits.shape[1] if logits.dim() > 1 else 0
            if max(self.classes) >= known:
                raise UserError(
                    f"{context.where}.classes: class {max(self.classes)} is not among the teacher's {known} classes"
                )
            output = ModelOutput(logits[:, self.classes])
        try:
            context.check_output(context.task.read(output))
        except UserError as error:
            several = logits.dim() > 1 and logits.shape[1] > 1
            if context.needs_logits and (not several or not str(error).startswith(context.where)):
                raise  # no matter of which classes it has
            if context.needs_logits:
                raise UserError(f"{error}, or map its classes onto the data's: {context.where}.classes=[…]") from error
            log.info("teacher %s: only its features are used: %s", context.name, error)
            return frozenset({FEATURES})
        return self.provides

    def _first_answer(self, module: nn.Module, batch: Batch, context: TeacherContext) -> ModelOutput:
        try:
            with torch.no_grad():
                return as_model_output(ask(module, resized(batch.inputs, self.image_size)))
        except UserError:
            raise
        except Exception as error:  # whatever a network does with inputs that it is not made for
            shapes = ", ".join(
                f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_of(batch.inputs)
            )
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{context.where}.model: fails on one batch (inputs {shapes}): {text[:300]}{inputs_hint(batch.inputs)}"
            ) from error

    def _require_numbers(self, teacher: FrozenTeacher, context: TeacherContext) -> None:
        """Refuse answers that are no numbers, which would look like a student that diverges."""
        logits = teacher(context.datamodule.example_batch()).logits
        if LOGITS in teacher.provides and not torch.isfinite(logits).all():
            reason = "" if self.precision == "32" else f" in {context.where}.precision={self.precision}"
            raise UserError(f"{context.where}: teacher {context.name} gives nan or inf on the data's samples{reason}")


def classes_by_name(module: nn.Module, context: TeacherContext) -> list[int] | None:
    """Where a model says by ``class_names`` what its classes are called: which of them are the data's, in their order; None
    where it does not, they are the same, or the data's names are others (then its classes are taken in their order)."""
    theirs, ours = getattr(module, "class_names", None), context.datamodule.class_names
    if theirs is None or ours is None:
        return None
    number = {str(name).casefold(): k for k, name in enumerate(theirs)}
    found = [number.get(str(name).casefold()) for name in ours]
    known = [k for k in found if k is not None]
    if len(known) < len(found):
        if not context.trial:
            log.info(
                "teacher %s: its classes are called %s, and taken in this order for the data's %s (%s.classes says otherwise)",
                context.name, ", ".join(map(str, theirs[:8])), ", ".join(map(str, ours[:8])), context.where,
            )  # fmt: skip
        return None
    return None if known == list(range(len(theirs))) else known


def data_normalization(context: TeacherContext) -> Normalization | None:
    """By what the data's inputs were normalised; None where nobody knows, or by nothing."""
    mean, std = context.datamodule.mean, context.datamodule.std
    return None if mean is None or std is None else {"mean": mean, "std": std}
