"""A teacher that is trained here, once: a run of its own, stored under the fingerprint of all that made it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.runs.checkpoint import load_checkpoint, load_weights, model_weights
from kd_lightning.teachers.checkpoint import load_given, require_file
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.network import NetworkTeacher
from kd_lightning.teachers.recipe import check_own_data, check_recipe
from kd_lightning.teachers.training import announce_training, trained_once

log = logging.getLogger(__name__)


class TrainedTeacher(NetworkTeacher):
    """A network that is trained by a recipe, on the student's data or data that differ from them.

    Args:
        model, settings: see :class:`~kd_lightning.teachers.network.NetworkTeacher`.
        train: its recipe: ``max_epochs``, ``seed``, ``optimizer``, ``scheduler``, ``scheduler_interval``, and, for a
            teacher that is itself distilled (an assistant, a next generation), ``teacher`` and ``method``. None: the
            network is taken as it comes.
        data: arguments of the data that differ in its training.
        checkpoint: a file of weights, or a run's directory, taken instead of training.
        checkpoint_key: which weights of that file (or of ``init``), where it has several.
        init: a file of weights, or a run's directory, from which its training starts; layers of another shape, a head for other classes,
            start anew.
    """

    def __init__(
        self,
        model: Mapping[str, Any] | None,
        train: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        checkpoint: str | None = None,
        checkpoint_key: str | None = None,
        init: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self.train, self.data, self.checkpoint = train, data or {}, checkpoint
        self.checkpoint_key, self.init = checkpoint_key, init
        if init is not None and (train is None or checkpoint is not None):
            instead = "teacher.train is null" if train is None else "teacher.checkpoint is given"
            raise UserError(f"teacher.init={init}: training starts from it, and there is none ({instead})")

    @staticmethod
    def check(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """What can be wrong with the node beyond its signature.

        Raises:
            TargetProblem: its key is relative to the node.
        """
        require_file(node, "checkpoint")
        require_file(node, "init")
        check_own_data(node, config)
        if node.get("train") is not None and node.get("model") is not None:
            check_recipe(node["train"])

    def fill(self, module: nn.Module, context: TeacherContext) -> dict[str, Any]:
        if self.checkpoint is not None:
            load_given(module, self.checkpoint, self.checkpoint_key, self.classes, context)
            return {"run_dir": None, "checkpoint": str(self.checkpoint)}
        if self.train is None:
            return {"run_dir": None}
        if context.trial:
            announce_training(context)
            return {"run_dir": None}
        result, run_dir = trained_once(context)
        best = run_dir / "checkpoints" / "best.ckpt"
        load_weights(module, model_weights(load_checkpoint(best, context.where)), str(best))
        metric = result["monitor"]["metric"]
        return {
            "run_dir": str(run_dir.resolve()),
            f"test/{metric}": result["metrics"].get(f"test/{metric}"),
            f"val/{metric}": result["metrics"].get(f"best/val_{metric}"),
            **({"fitted": result["fitted"]} if result.get("fitted") else {}),
        }
