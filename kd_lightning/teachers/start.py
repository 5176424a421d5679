"""What a teacher's training starts from: its network with given weights, its network behind a change of size."""

from __future__ import annotations

from typing import Any

from torch import nn

from kd_lightning.runs.weights import load_weights_file
from kd_lightning.teachers.inputs import resized


def initialised(model: nn.Module, checkpoint: str, checkpoint_key: str | None = None) -> nn.Module:
    """The model with a file's weights; layers of another shape (a head for other classes) keep their fresh ones.

    Raises:
        UserError: the file fits no layer, or is none.
    """
    load_weights_file(model, checkpoint, "teacher.init", checkpoint_key, partial=True)
    return model


def resizing(model: nn.Module, image_size: int) -> nn.Module:
    """The model, taking images of any size, which are scaled to ``image_size`` pixels a side; layer names stay."""

    def scaled(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (resized(arguments[0], image_size), *arguments[1:])

    model.register_forward_pre_hook(scaled)
    return model
