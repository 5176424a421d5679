"""A teacher that is an ONNX file: any network or pipeline, run by onnxruntime."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.config.targets import TargetProblem
from kd_lightning.data.samples import by_themselves
from kd_lightning.errors import UserError
from kd_lightning.joints import LABELS, LOGITS, PROBABILITIES, VALUES, Teacher
from kd_lightning.outputs import ModelOutput, looks_like_probabilities
from kd_lightning.teachers.arrays import PROVIDES, as_output
from kd_lightning.teachers.checkpoint import require_file
from kd_lightning.teachers.class_names import other_classes, require_different
from kd_lightning.teachers.class_order import require_class_order
from kd_lightning.teachers.frozen import batch_device
from kd_lightning.teachers.inputs import Normalization, per_channel, renormalization, resized
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.network import data_normalization
from kd_lightning.teachers.onnx_session import OnnxSession
from kd_lightning.teachers.preprocessing import beside, other_normalization

log = logging.getLogger(__name__)

_COMPARED = 512  # labelled samples on which the classes' order is looked at


class OnnxTeacher:
    """Opens an ONNX file.

    Args:
        file: the file.
        outputs: what it answers: logits, probabilities, labels (class numbers or names), or values (of a regression).
        output: the name of that output; None: the only one, or the one that is called as ``outputs``.
        inputs: the data's inputs by the names of the file's, where these are called otherwise; None: equal names, or the
            only one.
        classes: which of its classes are the data's, in the data's order; None: its classes are the data's.
        normalization: mean and std that it was trained with, per channel, where they are not the data's.
        image_size: pixels of a side of the images that it takes, where the data's are of another size.
    """

    labels_new_inputs = True

    def __init__(
        self,
        file: str,
        outputs: Literal["logits", "probabilities", "labels", "values"] = "logits",
        output: str | None = None,
        inputs: Mapping[str, str] | None = None,
        classes: Sequence[int] | None = None,
        normalization: Normalization | None = None,
        image_size: int | None = None,
    ) -> None:
        if classes is not None and (not len(classes) or min(classes) < 0 or outputs not in (LOGITS, PROBABILITIES)):
            raise UserError(f"teacher.classes: needs a class number >= 0 for each class of the data, got {classes}")
        require_different(classes)
        self.file, self.outputs, self.output = file, outputs, output
        self.inputs = dict(inputs or {})
        self.classes = None if classes is None else list(classes)
        self.normalization, self.image_size = normalization, image_size

    @staticmethod
    def check(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """What can be wrong with the node beyond its signature.

        Raises:
            TargetProblem: its key is relative to the node.
        """
        if not node.get("file"):
            raise TargetProblem("file", "needs the ONNX file")
        require_file(node, "file")

    @property
    def provides(self) -> frozenset[str]:
        return PROVIDES[self.outputs]

    def make(self, context: TeacherContext) -> Teacher:
        """Open the file, ask it about two samples, and look at the order of its classes.

        Raises:
            UserError: it cannot be opened, or does not suit the data.
        """
        where = f"{context.where}.file={self.file}"
        session = OnnxSession(self.file, where, self.output, self.outputs, self.inputs)
        teacher = OnnxAnswers(self, session, context)
        data: Any = context.datamodule
        output = teacher(data.example_batch())
        if self.outputs == LOGITS and looks_like_probabilities(output.logits) and not context.trial:
            log.warning(
                "WARNING: teacher %s: its outputs look like probabilities (each sample's are >= 0 and sum to 1), and they are "
                "taken for logits: if so, set %s.outputs=probabilities", context.name, context.where,
            )  # fmt: skip
        inputs = data.example_batch().inputs
        told = other_normalization(
            beside(self.file), self.normalization, data_normalization(context), inputs, context.where
        )
        if told and not context.trial:
            log.warning("WARNING: teacher %s: %s", context.name, told)
        if self.classes is None and self.outputs in (LOGITS, PROBABILITIES):
            named = other_classes(self.file, data.class_names, context.where, "file")
            if named and not context.trial:
                log.warning("WARNING: %s", named)
        context.check_output(output, "file")
        targets = data.train_views_dataset.targets
        if self.outputs in (LOGITS, PROBABILITIES) and not context.trial and targets is not None and targets.dim() == 1:
            index = (targets != UNLABELLED).nonzero()[:_COMPARED, 0]
            if len(index):
                inputs, target = by_themselves(data.train_views_dataset).read(index, 0)
                said = teacher(Batch(inputs, target, index)).logits.cpu()
                names = [str(k) for k in self.classes] if self.classes is not None else None
                require_class_order(said, target, data.class_names, where, names, f"{context.where}.classes")
        return teacher


class OnnxAnswers:
    """Answers with an open ONNX file, on the processor; answers go to the device of the inputs.

    Args:
        kind: its settings.
        session: the open file.
        context: of the teacher that is made.
    """

    labels_new_inputs = True

    def __init__(self, kind: OnnxTeacher, session: OnnxSession, context: TeacherContext) -> None:
        self.name, self.provides = context.name, kind.provides
        self._kind, self._session, self._context = kind, session, context
        self._scale_shift = renormalization(kind.normalization, data_normalization(context), context.name)
        self._classes = context.classes() if kind.outputs == LABELS else None
        self._content = _digest(kind.file)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> ModelOutput:
        """Logits (N, C), the logarithm of probabilities, or values (N, D) in the task's units."""
        answers = self._session(self._prepared(batch.inputs), self._context.datamodule.class_names)
        if self._kind.outputs == VALUES:
            values = torch.as_tensor(answers.reshape(len(answers), -1)).float()
            return ModelOutput(self._context.encoded(values).to(batch_device(batch.inputs)))
        output = as_output(answers, self._kind.outputs, self._classes).logits
        if self._kind.classes is not None:
            known = output.shape[1]
            if max(self._kind.classes) >= known:
                raise UserError(
                    f"{self._context.where}.classes: class {max(self._kind.classes)} is not among the file's {known} classes"
                )
            output = output[:, self._kind.classes]
        return ModelOutput(output.to(batch_device(batch.inputs)))

    def _prepared(self, inputs: Any) -> Any:
        if not isinstance(inputs, torch.Tensor):
            return inputs
        if self._scale_shift is not None:
            scale, shift = (per_channel(v, inputs) for v in self._scale_shift)
            inputs = torch.addcmul(shift, inputs, scale)
        return resized(inputs, self._kind.image_size)

    def to(self, device: torch.device | str) -> OnnxAnswers:
        """It stays on the processor."""
        return self

    def verify(self) -> None:
        """What was opened does not move, whatever becomes of the file."""

    def cache_parts(self) -> dict[str, Any]:
        kind = self._kind
        settings = {key: getattr(kind, key) for key in ("outputs", "output", "inputs", "classes", "image_size")}
        scale_shift = self._scale_shift and [[float(f"{v:.6g}") for v in part.tolist()] for part in self._scale_shift]
        return {"file": self._content, **settings, "input_scale_shift": scale_shift}

    def describe(self) -> dict[str, Any]:
        kind = self._kind
        return {
            "name": self.name,
            "fingerprint": self._content,
            "parameters": None,
            "bytes": Path(kind.file).stat().st_size,
            "file": str(kind.file),
        }


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
