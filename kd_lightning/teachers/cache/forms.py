"""What is kept of a sample's logits: all of them, or the k largest.

A form says by ``columns`` what it stores, takes logits apart into these columns (``parts``), puts them together again
(``logits``), and says how far stored ones are from the teacher's beyond what it leaves out by intention (``deviation``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.teachers.cache.store import Column


class NotCacheable(UserError):
    """What the teacher answers cannot be stored as asked."""


class LogitsForm(Protocol):
    """A form in which logits are stored; ``columns`` are what :meth:`parts` gives, by name and in order."""

    @property
    def columns(self) -> list[Column]: ...

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        """What is stored of logits (N, C, ...), by column; NotCacheable where it cannot be."""
        ...

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The logits (N, C, ...) again, float32."""
        ...

    def deviation(self, live: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """How far the stored logits are from these, (N, C, ...), relative to 1 + the largest: shape (N,)."""
        ...


@runtime_checkable
class FittedForm(LogitsForm, Protocol):
    """A form that reads its rows with something that was fitted to the teacher's answers."""

    def fit(self, logits: Tensor) -> Tensor:
        """What was fitted to logits (N, C), float32 with two dimensions; NotCacheable where the form does not suit them."""
        ...

    def use(self, fitted: Tensor) -> None:
        """Take what :meth:`fit` gave, before anything else is asked."""
        ...


def relative_deviation(live: Tensor, stored: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """The largest difference of each sample beyond ``rounding``, relative to 1 + its largest value, (N,)."""
    off = (live - stored).abs() - rounding
    return off.reshape(len(live), -1).amax(1) / (1 + live.abs().reshape(len(live), -1).amax(1))


def number_column(classes: int) -> str:
    """The storage type of class numbers."""
    return "uint16" if classes <= 1 << 16 else "int32"


def class_numbers(part: Tensor, column: Column) -> Tensor:
    """Class numbers of a column of :func:`number_column`, int64."""
    return part.long() & 0xFFFF if column.dtype == "uint16" else part.long()


class AllLogits:
    """Each logit, rounded to a storage precision.

    Args:
        precision: "fp16", "bf16" or "fp32".
        shape: of a sample's logits.
    """

    def __init__(self, precision: str, shape: tuple[int, ...]) -> None:
        self.columns = [Column("logits", precision, shape)]

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        return {"logits": logits}

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["logits"].float()

    def deviation(self, live: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        return relative_deviation(live, self.logits(parts))


class LargestLogits:
    """The k largest of C logits, one number for all the others, and the k class numbers.

    The others come back equal, at the level at which softmax keeps the mass that they had together at T = 1; at higher
    temperatures their shape is lost, and their share grows with their number.

    Args:
        precision: of the logits, "fp16", "bf16" or "fp32".
        classes: C.
        k: logits that are kept, 1 <= k < C - 1.
    """

    def __init__(self, precision: str, classes: int, k: int) -> None:
        self._classes, self._k = classes, k
        self.columns = [
            Column("values", precision, (k + 1,)),
            Column("classes", number_column(classes), (k,)),
        ]

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        logits = logits.float()
        top = logits.topk(self._k, dim=1)
        rest = logits.scatter(1, top.indices, -math.inf).logsumexp(1, keepdim=True)
        level = rest - math.log(self._classes - self._k)
        return {"values": torch.cat([top.values, level], 1), "classes": top.indices}

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        values = parts["values"].float()
        numbers = class_numbers(parts["classes"], self.columns[1])
        return values[:, -1:].repeat(1, self._classes).scatter(1, numbers, values[:, :-1])

    def deviation(self, live: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        kept = live.gather(1, class_numbers(parts["classes"], self.columns[1]))
        return relative_deviation(kept, parts["values"].float()[:, :-1])
