"""Inputs by name, as students of texts take them: token numbers and their mask, batch and length of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun

NAMES = ("input_ids", "attention_mask")
"""Of int64 tensors (N, L): a token's number, and 1 where there is a token, 0 where it was padded."""
LENGTH = 8
"""Tokens of the example that a graph is traced with; other than its number of samples, or the two would be taken for one."""

Inputs = Tensor | Mapping[str, Tensor]


class ByName(nn.Module):
    """A model of a mapping as one with arguments, which is what a graph has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token numbers and mask, both (N, L), int64, to (N, ...)."""
        answer: Tensor = self.model({NAMES[0]: input_ids, NAMES[1]: attention_mask})
        return answer


def takes_names(run: OpenRun) -> bool:
    """Whether a run's student takes :data:`NAMES`; False for one input tensor.

    Raises:
        UserError: it takes something else.
    """
    try:
        if isinstance(run.example_inputs(), Mapping):
            names = set(tensors_of(run.example_inputs()))
            if names == set(NAMES):
                return True
        run.example_shape  # noqa: B018  # raises where the inputs are no single tensor
    except UserError as error:
        raise UserError(
            f"{run.spec.run_dir}: only a student of one input tensor, or of texts ({' and '.join(NAMES)}), can be exported: use "
            "kd-predict, or kd.open_run(run_dir).predict(inputs) in Python"
        ) from error
    return False


def example(samples: int, length: int) -> dict[str, Tensor]:
    """Texts of ``length`` tokens, no more than :data:`LENGTH`, to trace a graph with."""
    shape = (samples, max(1, min(LENGTH, length)))
    return {
        name: torch.ones(shape, dtype=torch.int64) for name in NAMES
    }  # a tensor each: one alone would be taken for one input


def any_length(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    """For torch.export: the first two dimensions of each are of any size (up to what the model itself allows)."""
    return {name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in inputs}


def tensors_of(inputs: Any) -> Any:
    """The inputs that a graph takes: of a mapping its tensors, and no texts."""
    if not isinstance(inputs, Mapping):
        return inputs
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def each(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Inputs with every tensor changed."""
    return {name: change(value) for name, value in inputs.items()} if isinstance(inputs, Mapping) else change(inputs)


def samples_in(inputs: Any) -> int:
    """How many samples there are."""
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def shape_of(inputs: Any) -> str:
    """For messages."""
    return str(tuple((next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs).shape))


def calling_by_name(call: Callable[..., Any]) -> Callable[[Any], Any]:
    """A program that takes arguments, called with one tensor or with a mapping of them."""
    return lambda inputs: call(**inputs) if isinstance(inputs, Mapping) else call(inputs)
