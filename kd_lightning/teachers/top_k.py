"""The k likeliest classes of each sample, as APIs give them; what is left over is spread evenly over the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.teachers.answer_file import AnswerFile
from kd_lightning.teachers.arrays import ROUNDING

_NUMBERED = re.compile(r"^(class|probability|logprob)_?(\d+)$")
REST = "rest"


def spread_out(
    file: AnswerFile, rows: np.ndarray, called: Callable[[int], str], names: Sequence[str] | None, classes: int
) -> Tensor:
    """Logits (N, C) of the chosen rows, whose softmax (at temperature 1) has each given class's probability and leaves the
    others together what remains.

    A row has columns ``class_1``, ``probability_1``, ``class_2``, … (or ``logprob_1``, its logarithm; an empty class means
    that there are no more), as text files have them; an NPZ file has ``classes`` and ``probabilities``, both (R, k). A
    column ``rest`` says what remains; without it, it is 1 minus the sum.

    Raises:
        UserError: columns are missing, a class is unknown or stands twice, the sum is above 1.
    """
    numbers, shares = _pairs(file, names, classes)
    numbers, shares = numbers[rows], shares[rows]
    bad = ~np.isfinite(shares) | (shares < 0)
    if (bad & (numbers >= 0)).any():
        k = int((bad & (numbers >= 0)).any(1).argmax())
        raise UserError(f"{file.where}: {called(k)} holds a probability that is none")
    made = np.zeros((len(rows), classes))
    for k, (row, share) in enumerate(zip(numbers, shares, strict=True)):
        given = row[row >= 0]
        if len(set(given.tolist())) < len(given):
            raise UserError(f"{file.where}: {called(k)} names a class twice")
        made[k, given] = share[row >= 0]
    total = made.sum(1)
    if (total > 1 + ROUNDING).any():
        k = int((total > 1 + ROUNDING).argmax())
        raise UserError(
            f"{file.where}: {called(k)} sums to {total[k]:.3g}: the probabilities of the top k sum to at most 1"
        )
    rest = file.columns[REST][rows].astype(np.float64) if REST in file.columns else np.clip(1 - total, 0, None)
    left = classes - (numbers >= 0).sum(1)
    absent = np.ones_like(made, dtype=bool)
    for k, row in enumerate(numbers):
        absent[k, row[row >= 0]] = False
    made += absent * np.where(left > 0, rest / np.maximum(left, 1), 0.0)[:, None]
    made /= made.sum(1, keepdims=True)
    return torch.from_numpy(made).float().clamp_min(torch.finfo(torch.float32).tiny).log()


def _pairs(file: AnswerFile, names: Sequence[str] | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (R, k), -1 for none, and probabilities (R, k)."""
    known = {str(number): number for number in range(classes)}
    known |= {str(name): number for number, name in enumerate(names or [])}
    if "classes" in file.columns:
        given = file.column("classes", "teacher.file")
        shares = file.column("probabilities", "teacher.file").astype(np.float64)
    else:
        found: dict[str, dict[int, str]] = {"class": {}, "probability": {}, "logprob": {}}
        for name in file.columns:
            match = _NUMBERED.match(name)
            if match:
                found[match[1]][int(match[2])] = name
        kind = "probability" if found["probability"] else "logprob"
        if not found["class"] or set(found["class"]) != set(found[kind]):
            raise UserError(
                f"{file.where}: the top k need columns class_1, probability_1 (or logprob_1), class_2, …, it has "
                f"{', '.join(list(file.columns)[:8])}"
            )
        order = sorted(found["class"])
        given = np.stack([file.columns[found["class"][k]].astype(object) for k in order], axis=1)
        shares = file.numbers([found[kind][k] for k in order], "teacher.columns")
        shares = np.exp(shares) if kind == "logprob" else shares
    numbers = np.array([[_number(cell, known, file.where) for cell in row] for row in given])
    return numbers, np.where(numbers >= 0, shares, 0.0)


def _number(cell: Any, known: dict[str, int], where: str) -> int:
    text = str(int(cell)) if isinstance(cell, (float, np.floating)) and float(cell).is_integer() else str(cell)
    if text in ("", "nan", "None", "-1"):
        return -1
    if text not in known:
        raise UserError(
            f"{where}: names the class {text!r}, which is none of the data's ({', '.join(list(known)[-8:])})"
        )
    return known[text]
