"""A teacher with weights from a file: a run's checkpoint, or any dictionary of tensors by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kd_lightning.config.targets import TargetProblem
from kd_lightning.runs.directory import checkpoint_in
from kd_lightning.runs.weights import load_weights_file
from kd_lightning.teachers.class_names import other_classes
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.network import NetworkTeacher

log = logging.getLogger(__name__)


class CheckpointTeacher(NetworkTeacher):
    """A network with the weights of a file, which is read with ``weights_only=True``.

    Args:
        model, settings: see :class:`~kd_lightning.teachers.network.NetworkTeacher`.
        checkpoint: the file, or a run's directory, whose best weights are meant.
        checkpoint_key: which weights of the file, where it has several.
    """

    def __init__(
        self, model: Mapping[str, Any] | None, checkpoint: str, checkpoint_key: str | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        self.checkpoint, self.checkpoint_key = checkpoint, checkpoint_key

    @staticmethod
    def check(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """What can be wrong with the node beyond its signature."""
        require_file(node, "checkpoint")

    def fill(self, module: nn.Module, context: TeacherContext) -> dict[str, Any]:
        load_given(module, self.checkpoint, self.checkpoint_key, self.classes, context)
        return {"checkpoint": str(self.checkpoint)}


def load_given(
    module: nn.Module, path: str, key: str | None, classes: Sequence[int] | None, context: TeacherContext
) -> None:
    """Fill a teacher's network from ``checkpoint``, and look at the order of its classes where ``classes`` does not give it."""
    load_weights_file(module, path, f"{context.where}.checkpoint", key)
    if classes is None:
        told = other_classes(path, context.datamodule.class_names, context.where)
        if told is not None and context.needs_logits and not context.trial:
            log.warning("WARNING: %s", told)


def require_file(node: Mapping[str, Any], key: str) -> None:
    """Raise TargetProblem where an argument names neither a file that is there nor a run with a checkpoint."""
    path = node.get(key)
    if path is None or checkpoint_in(str(path)).is_file():
        return
    if Path(str(path)).is_dir():
        raise TargetProblem(key, f"{path} is a directory without checkpoints/best.ckpt: give a run's, or a file")
    raise TargetProblem(key, f"no such file: {path}")
