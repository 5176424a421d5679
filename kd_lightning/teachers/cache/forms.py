"""What is kept of a sample's logits: all of them, or the k largest.

A form says by ``columns`` what it stores, takes logits apart into these columns (``parts``), puts them together again
(``logits``), and says how far a stored logit may be from the teacher's by intention (``rounding``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

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

    def rounding(self, parts: Mapping[str, Tensor]) -> Tensor:
        """How far each stored logit may be from the teacher's beside an error relative to all of them, (N, C, ...)."""
        ...


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

    def rounding(self, parts: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros(parts["logits"].shape)


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
            Column("classes", "uint16" if classes <= 1 << 16 else "int32", (k,)),
        ]

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        logits = logits.float()
        top = logits.topk(self._k, dim=1)
        rest = logits.scatter(1, top.indices, -math.inf).logsumexp(1, keepdim=True)
        level = rest - math.log(self._classes - self._k)
        return {"values": torch.cat([top.values, level], 1), "classes": top.indices}

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        values = parts["values"].float()
        return values[:, -1:].repeat(1, self._classes).scatter(1, self._numbers(parts), values[:, :-1])

    def rounding(self, parts: Mapping[str, Tensor]) -> Tensor:
        anything = torch.full((len(parts["values"]), self._classes), math.inf)
        return anything.scatter(1, self._numbers(parts), 0.0)

    def _numbers(self, parts: Mapping[str, Tensor]) -> Tensor:
        numbers = parts["classes"].long()
        return numbers & 0xFFFF if self.columns[1].dtype == "uint16" else numbers
