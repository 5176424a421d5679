"""How a teacher's answer becomes a row of bytes, and back.

A row is the logits in one of the forms of :mod:`.forms`, :mod:`.six_bits` and :mod:`.scores`, then the spread where a teacher gives one,
then a number that stands for the input that was answered (:mod:`.marks`). Numbers are stored as fp16 (relative error
2^-11, values up to 65504), bf16 (2^-8) or fp32 (exact).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cache.approximate import APPROXIMATE, SCORES, SIX_BIT
from kd_lightning.teachers.cache.forms import AllLogits, LargestLogits, LogitsForm, NotCacheable
from kd_lightning.teachers.cache.scores import PrincipalScores
from kd_lightning.teachers.cache.six_bits import SixBitLogits
from kd_lightning.teachers.cache.store import Column

MARK = "input"

TORCH_DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "int32": torch.int32,
    "uint16": torch.int16,  # its bits: torch computes little with uint16
    "uint8": torch.uint8,
    "int8": torch.int8,
}
PRECISIONS = ("fp16", "bf16", "fp32", SIX_BIT, SCORES)


class RowCodec:
    """Turns outputs into rows and back.

    Args:
        example: a teacher's output for any batch; tells shapes.
        precision: "fp16", "bf16", "fp32", or of logits of classes "6bit" or "scores".
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
            if precision in APPROXIMATE:
                raise UserError(
                    f"teacher.cache_top_k={top_k}: {precision} keeps what it needs, set teacher.cache_top_k=null"
                )
            if top_k >= self.classes - 1:
                self.top_k = None  # nothing, or one logit, would be left out: keep it exactly
        if precision in APPROXIMATE and (not shape or example.spread is not None):
            raise UserError(f"teacher.cache_precision={precision} is for logits of classes: use fp16")
        if precision == SCORES and len(shape) > 1:
            raise UserError(f"teacher.cache_precision={SCORES} is for one answer a sample, got (N, *{shape}): use 6bit")
        self.form: LogitsForm
        if precision == SIX_BIT:
            self.form = SixBitLogits(shape)
        elif precision == SCORES:
            self.form = PrincipalScores(self.classes)
        elif self.top_k is None:
            self.form = AllLogits(precision, shape)
        else:
            self.form = LargestLogits(precision, self.classes, self.top_k)
        self.columns = list(self.form.columns)
        if example.spread is not None:
            self.columns.append(Column("spread", precision, tuple(example.spread.shape[1:])))
        self.columns.append(Column(MARK, "fp32", ()))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return sum(column.nbytes for column in self.columns)

    def encode(self, output: ModelOutput, marks: Tensor) -> Tensor:
        """Rows: uint8 of shape (N, row_bytes), on the CPU; ``marks`` of the N inputs, shape (N,).

        Raises:
            NotCacheable: the teacher gave nan or inf, or the precision cannot hold a logit.
        """
        parts = self.form.parts(output.logits.detach())
        if output.spread is not None:
            parts["spread"] = output.spread.detach()
        parts[MARK] = marks
        return torch.cat([self._bytes(parts[column.name], column) for column in self.columns], dim=1)

    def decode(self, rows: Tensor) -> ModelOutput:
        """The outputs in float32, logits of shape (N, C), from rows as :meth:`encode` made them."""
        parts = self._parts(rows)
        spread = parts["spread"].float() if "spread" in parts else None
        return ModelOutput(self.form.logits(parts), spread=spread)

    def deviation(self, live: Tensor, rows: Tensor) -> Tensor:
        """How far each row is from the teacher's logits (N, C, ...) of now, shape (N,).

        Relative to 1 + the largest logit, beyond what the form rounds or leaves out by intention.
        """
        return self.form.deviation(live, self._parts(rows))

    def marks(self, rows: Tensor) -> Tensor:
        """The marks of the inputs that the rows answer, shape (N,)."""
        start = self.row_bytes - self.columns[-1].nbytes
        return self._part(rows, self.columns[-1], start)

    def _parts(self, rows: Tensor) -> dict[str, Tensor]:
        parts, start = {}, 0
        for column in self.columns:
            parts[column.name] = self._part(rows, column, start)
            start += column.nbytes
        return parts

    @staticmethod
    def _part(rows: Tensor, column: Column, start: int) -> Tensor:
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
