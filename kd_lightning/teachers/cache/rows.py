"""How a teacher's answer becomes a row of bytes, and back: storage precision, and the top k of many classes.

A row is the logits as fp16 (relative error 2^-11, values up to 65504), bf16 (2^-8) or fp32 (exact), then the spread
where a teacher gives one, then a number that stands for the input that was answered (:mod:`.marks`). With ``top_k`` it is the k largest logits, one number for all the others, and the k class
numbers: the others come back equal, at the level at which softmax keeps the mass that they had together (at T = 1; at
higher temperatures their shape is lost, so k should cover what the teacher finds plausible).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cache.store import Column

MARK = "input"

TORCH_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "int32": torch.int32}
PRECISIONS = ("fp16", "bf16", "fp32")


class NotCacheable(UserError):
    """What the teacher answers cannot be stored as asked."""


class RowCodec:
    """Turns outputs into rows and back.

    Args:
        example: a teacher's output for any batch; tells shapes.
        precision: "fp16", "bf16" or "fp32".
        top_k: logits kept of each sample, 1 <= k; None keeps all.
    """

    def __init__(self, example: ModelOutput, precision: str = "fp16", top_k: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"teacher.cache_precision: got {precision!r}, choose one of {', '.join(PRECISIONS)}")
        shape = tuple(example.logits.shape[1:])
        self.precision, self.classes, self.top_k = precision, shape[0] if shape else 1, top_k
        if top_k is not None:
            if top_k < 1 or len(shape) != 1:
                raise UserError(
                    f"teacher.cache_top_k={top_k}: needs k >= 1 and logits of shape (N, C), got (N, *{shape})"
                )
            if top_k >= self.classes - 1:
                self.top_k = None  # nothing, or one logit, would be left out: keep it exactly
        if self.top_k is None:
            self.columns = [Column("logits", precision, shape)]
        else:
            self.columns = [Column("values", precision, (self.top_k + 1,)), Column("classes", "int32", (self.top_k,))]
        if example.spread is not None:
            self.columns.append(Column("spread", precision, tuple(example.spread.shape[1:])))
        self.columns.append(Column(MARK, "fp32", ()))

    def encode(self, output: ModelOutput, marks: Tensor) -> Tensor:
        """Rows: uint8 of shape (N, row_bytes), on the CPU; ``marks`` of the N inputs, shape (N,).

        Raises:
            NotCacheable: the teacher gave nan or inf, or the precision cannot hold a logit.
        """
        logits = output.logits.detach()
        if self.top_k is None:
            parts = {"logits": logits}
        else:
            top = logits.float().topk(self.top_k, dim=1)
            rest = logits.float().scatter(1, top.indices, -math.inf).logsumexp(1, keepdim=True)
            level = rest - math.log(self.classes - self.top_k)
            parts = {"values": torch.cat([top.values, level], 1), "classes": top.indices}
        if output.spread is not None:
            parts["spread"] = output.spread.detach()
        parts[MARK] = marks
        return torch.cat([self._bytes(parts[column.name], column) for column in self.columns], dim=1)

    def decode(self, rows: Tensor) -> ModelOutput:
        """The outputs in float32, logits of shape (N, C), from rows as :meth:`encode` made them."""
        parts = {column.name: self._part(rows, column) for column in self.columns}
        spread = parts["spread"].float() if "spread" in parts else None
        if self.top_k is None:
            return ModelOutput(parts["logits"].float(), spread=spread)
        values = parts["values"].float()
        logits = values[:, -1:].repeat(1, self.classes)
        return ModelOutput(logits.scatter(1, parts["classes"].long(), values[:, :-1]), spread=spread)

    def marks(self, rows: Tensor) -> Tensor:
        """The marks of the inputs that the rows answer, shape (N,)."""
        return self._part(rows, self.columns[-1])

    def _part(self, rows: Tensor, column: Column) -> Tensor:
        start = sum(before.nbytes for before in self.columns[: self.columns.index(column)])
        part = rows[:, start : start + column.nbytes].contiguous().view(TORCH_DTYPES[column.dtype])
        return part.reshape(-1, *column.shape)

    def _bytes(self, part: Tensor, column: Column) -> Tensor:
        stored = part.to(TORCH_DTYPES[column.dtype])
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            if torch.isfinite(part).all():
                largest = float(part.abs().max())
                raise NotCacheable(
                    f"teacher.cache_precision={self.precision} cannot hold the teacher's {column.name} (up to "
                    f"{largest:.3g}): use bf16 or fp32"
                )
            raise NotCacheable(
                f"the teacher's {column.name} hold nan or inf on training samples: they cannot be cached"
            )
        return stored.cpu().reshape(len(stored), -1).contiguous().view(torch.uint8)
