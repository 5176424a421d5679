"""What is exported: the student's logits as one tensor, with the normalisation before it if that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.joints import Task
from kd_lightning.outputs import as_model_output
from kd_lightning.running.open_run import Preprocessing

WHOLE_PIXEL = 0.01
"""How far a pixel may lie from a whole number: float32's rounding in normalising and back, and no more."""


class OneTensor(nn.Module):
    """The student, its output one tensor whatever kind of output it gives.

    Args:
        student: or whatever answers as it does.
        task: says which tensor.
    """

    def __init__(self, student: Callable[[Tensor], Any], task: Task) -> None:
        super().__init__()
        self.student = student
        self._task = task

    def forward(self, inputs: Any) -> Tensor:
        """Inputs (N, ...) as the student takes them, or several by name; (N, ...): logits, values, ..."""
        return self._task.exported(self._task.read(as_model_output(ask(self.student, inputs))))


class Pixels(nn.Module):
    """Normalises raw pixels: ``(pixels / scale - mean) / std`` by channel.

    Raises:
        UserError: the run's data did not say how they normalise, or their raw values are no bytes.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, known: Preprocessing, shape: tuple[int, ...]) -> None:
        super().__init__()
        if known.scale is None or known.mean is None or known.std is None:
            raise UserError("preprocess=true: the run's data did not say how they normalise; leave preprocess=true out")
        if len(shape) != 3 or not 0 < known.scale <= 255:
            raise UserError(
                f"preprocess=true: is for images of bytes; inputs here have the shape {shape} and values up to "
                f"{known.scale:g}; leave preprocess=true out"
            )
        self.register_buffer("scale", torch.tensor(float(known.scale)))
        self.register_buffer("mean", torch.tensor(known.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(known.std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of the same shape."""
        return (pixels.to(torch.float32) / self.scale - self.mean) / self.std

    def raw(self, inputs: Tensor) -> Tensor:
        """The pixels, uint8, that normalised inputs were made of.

        Raises:
            UserError: they were made of no whole pixels, as by an interpolation: a graph that takes bytes would be given
                others than the student was tested on.
        """
        pixels = (inputs * self.std + self.mean) * self.scale
        whole = pixels.round()
        if not ((pixels - whole).abs().max() <= WHOLE_PIXEL and whole.min() >= 0 and whole.max() <= 255):
            raise UserError(
                "preprocess=true: the test split's inputs are no whole pixels, normalised, so bytes cannot stand for them; "
                "leave preprocess=true out"
            )
        return whole.to(torch.uint8)


def answering(call: Callable[[Any], Any], inputs: Any) -> Tensor:
    """The one tensor that an opened file or a module answers with, in float32, on the CPU."""
    with torch.inference_mode():
        return as_model_output(call(inputs)).logits.detach().float().cpu()
