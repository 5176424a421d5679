"""What black boxes take and give: rows of numbers or texts in, probabilities, labels or values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.joints import LABELS, LOGITS, PROBABILITIES, VALUES
from kd_lightning.outputs import ModelOutput

HOLDS = (LOGITS, PROBABILITIES, LABELS, VALUES)
"""What the numbers that a black box gives may be."""

PROVIDES = {
    LOGITS: frozenset({LOGITS}),
    PROBABILITIES: frozenset({PROBABILITIES, LOGITS}),
    LABELS: frozenset({LABELS}),
    VALUES: frozenset({LOGITS, VALUES}),  # of a regression the prediction stands where logits stand
}
"""What a teacher with such numbers provides, see :class:`kd_lightning.joints.Teacher`."""

ROUNDING = 0.02
"""How far the sum of a row of probabilities may be from 1: they may have been written with two decimals."""


def rows_of(inputs: Any, name: str | None, where: str) -> np.ndarray:
    """The rows that a black box is shown: numbers (N, D), or texts (N,).

    Args:
        inputs: of a batch: a tensor (N, ...), a list of texts, or these by name.
        name: which of the inputs by name; None: the texts, if there are any, else the only one.
        where: the teacher's key, for messages.
    """
    if isinstance(inputs, Mapping):
        texts = [key for key, value in inputs.items() if isinstance(value, list)]
        if name is None and len(inputs) > 1 and len(texts) != 1:
            raise UserError(f"{where}.inputs: say which of the data's inputs it takes: {', '.join(map(str, inputs))}")
        name = name if name is not None else str((texts or list(inputs))[0])
        if name not in inputs:
            raise UserError(f"{where}.inputs={name}: the data's inputs are {', '.join(map(str, inputs))}")
        inputs = inputs[name]
    elif name is not None:
        raise UserError(f"{where}.inputs={name}: the data's inputs have no names: set it to null")
    if isinstance(inputs, list):
        return np.array([str(text) for text in inputs], dtype=object)
    if not isinstance(inputs, Tensor):
        raise UserError(f"{where}: takes one tensor or texts, the data's inputs are a {type(inputs).__name__}")
    rows: np.ndarray = inputs.detach().cpu().reshape(len(inputs), -1).numpy()
    return rows


def as_output(numbers: np.ndarray | Tensor, holds: str, classes: int | None = None) -> ModelOutput:
    """A black box's numbers as a model's answer.

    Args:
        numbers: (N, C), (N, D), or class numbers (N,) for labels.
        holds: one of :data:`HOLDS`. Of probabilities the logarithm is taken (``softmax(log p / T)`` is ``p^(1/T)``,
            normalised: whatever has the softmax in it gets the same from it as from logits); of labels that of a row
            with a 1.
        classes: C, for labels.
    """
    given = torch.as_tensor(numbers)
    if holds == LABELS:
        if classes is None:
            raise ValueError("labels need the number of classes")
        given = torch.nn.functional.one_hot(given.reshape(-1).long(), classes)
    values = given.to(torch.float32)
    if holds in (PROBABILITIES, LABELS):
        values = values.clamp_min(torch.finfo(values.dtype).tiny).log()
    return ModelOutput(values)


def require_probabilities(rows: np.ndarray, names: Any, where: str) -> np.ndarray:
    """Rows (N, C) that sum to 1 up to rounding, brought to exactly 1.

    Args:
        rows: the numbers.
        names: ``names(i)`` says what row i is called.
        where: key and file, for messages.

    Raises:
        UserError: a row holds a number below 0, no number, or does not sum to one.
    """
    rows = np.asarray(rows, dtype=np.float64)
    bad = ~np.isfinite(rows).all(1) | (rows < 0).any(1)
    if bad.any():
        first = int(bad.argmax())
        worst = rows[first][~np.isfinite(rows[first]) | (rows[first] < 0)][0]
        hint = "logits need holds=logits" if np.isfinite(worst) else "every class needs a number"
        raise UserError(f"{where}: {names(first)} holds {worst:g}, which is no probability ({hint})")
    sums = rows.sum(1)
    off = np.abs(sums - 1) > ROUNDING
    if off.any():
        first = int(off.argmax())
        more = f" (and {int(off.sum()) - 1:,} rows more)" if off.sum() > 1 else ""
        raise UserError(
            f"{where}: {names(first)} sums to {sums[first]:.3g}{more}: rows of probabilities sum to 1; other numbers need "
            "holds=logits or holds=values, and columns that are no classes have to be left out by columns=[…]"
        )
    made: np.ndarray = rows / sums[:, None]
    return made
