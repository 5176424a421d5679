"""What a finished run's student answers, from inputs in whatever form they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.joints import Task
from kd_lightning.outputs import ModelOutput, as_model_output
from kd_lightning.structure import mapped

if TYPE_CHECKING:
    from kd_lightning.running.open_run import Preprocessing


def answers(
    student: nn.Module,
    inputs: Any,
    example: Any,
    preprocessing: Preprocessing,
    batch_size: int,
    task: Task,
    make: Callable[[ModelOutput], Tensor],
) -> Tensor:
    """What is made of the student's outputs, (N, ...), float32 on the CPU.

    Args:
        student: asked in eval mode, where it is.
        inputs: uint8 pixels, or inputs as the run's data set makes them, see :meth:`OpenRun.predict`.
        example: the form of one sample, as ``result.json`` has it.
        preprocessing: what makes inputs of raw pixels.
        batch_size: samples at once, >= 1.
        task: reads an output.
        make: what is wanted of an output that was read: the task's ``predict``, ``deviation``.

    Raises:
        UserError: the inputs don't suit the run.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be >= 1, got {batch_size}")
    inputs = mapped(inputs, lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf)
    if isinstance(example, dict) and "shape" in example and not isinstance(inputs, Tensor):
        kinds = type(inputs).__name__ + (
            f" of {type(inputs[0]).__name__}" if isinstance(inputs, list) and inputs else ""
        )
        raise UserError(f"the run's inputs are {_form(('N', *example['shape']))}, one tensor or array; got a {kinds}")
    samples = _samples(inputs)
    weight = next(student.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    student.eval()
    found = []
    with torch.no_grad():
        for start in range(0, samples, batch_size):
            batch = mapped(inputs, _part(start, start + batch_size))
            batch = mapped(_suited(batch, example, preprocessing), _to(device))
            output = as_model_output(_asked(student, batch, example))
            found.append(make(task.read(replace(output, logits=output.logits.float()))).float().cpu())
    return torch.cat(found)


def _samples(inputs: Any) -> int:
    sizes: set[int] = set()

    def count(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            sizes.add(len(leaf) if leaf.dim() else 0)
        elif isinstance(leaf, (list, tuple)):  # of texts
            sizes.add(len(leaf))
        return leaf

    mapped(inputs, count)
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(
            f"inputs must be one or more samples, (N, ...), in every part of them; got {sorted(sizes)} samples"
        )
    return sizes.pop()


def _part(start: int, stop: int) -> Callable[[Any], Any]:
    return lambda leaf: leaf[start:stop] if isinstance(leaf, (Tensor, list, tuple)) else leaf


def _to(device: torch.device) -> Callable[[Any], Any]:
    return lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf


def _suited(inputs: Any, example: Any, preprocessing: Preprocessing) -> Any:
    """Inputs in the type of the run's; raw pixels normalised."""
    if not isinstance(inputs, Tensor) or not isinstance(example, dict) or "shape" not in example:
        return inputs
    shape, kind = tuple(example["shape"]), getattr(torch, example["dtype"])
    if inputs.dim() != len(shape) + 1 or (len(shape) == 1 and kind.is_floating_point and inputs.shape[1:] != shape):
        alone = "; a single sample needs a dimension more, x[None]" if tuple(inputs.shape) == shape else ""
        raise UserError(f"the run's inputs are {_form(('N', *shape))}, got {_form(inputs.shape)}{alone}")
    if inputs.dtype is torch.uint8 and kind is not torch.uint8:
        return _from_bytes(inputs, preprocessing).to(kind)
    if inputs.is_floating_point() and not kind.is_floating_point and not torch.equal(inputs, inputs.round()):
        raise UserError("the run's inputs are whole numbers, got fractions")
    return inputs.to(kind)


def _from_bytes(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    made, scale = preprocessing(pixels), preprocessing.scale
    if scale is not None and (scale <= 1 or int(pixels.max()) > scale):
        raise UserError(
            f"the run's raw pixels go up to {scale:g}, got bytes up to {int(pixels.max())}: bring them to that range, or "
            "give inputs as the run's data set makes them"
        )
    return made


def _asked(student: nn.Module, batch: Any, example: Any) -> Any:
    try:
        return ask(student, batch)
    except (RuntimeError, ValueError) as error:
        shape = tuple(example["shape"]) if isinstance(example, dict) and "shape" in example else None
        if not isinstance(batch, Tensor) or shape is None or tuple(batch.shape[1:]) == shape:
            raise
        raise UserError(f"the run's inputs are {_form(('N', *shape))}, got {_form(batch.shape)}") from error


def _form(shape: Any) -> str:
    return " x ".join(map(str, shape))
