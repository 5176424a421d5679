"""Losses between two log lines: kept where they were computed, brought over in one transfer."""

from __future__ import annotations

import torch
from torch import Tensor


class LossBlock:
    """One member's losses since they were last logged.

    Attributes:
        names: of the losses in each row.
        scheduled: current values of scheduled weights and temperature, by name.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.scheduled: dict[str, float] = {}
        self._rows: list[list[Tensor]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, names: tuple[str, ...], row: list[Tensor]) -> None:
        """Add one step's scalars; a block has one set of names, take it before they change."""
        self.names = names
        self._rows.append(row)

    def take(self) -> Tensor:
        """The block, of shape (steps, names), on the CPU; it is empty afterwards."""
        rows, self._rows = self._rows, []
        return torch.stack([value for row in rows for value in row]).reshape(len(rows), -1).cpu()  # one launch for all


def first_not_finite(block: Tensor, names: tuple[str, ...]) -> tuple[int, list[str]] | None:
    """Row of the first loss that is not finite and the names of the terms to blame; None if all are finite.

    The total, in the first column, is blamed only where no term is.
    """
    bad = (~torch.isfinite(block)).nonzero().tolist()
    if not bad:
        return None
    row = bad[0][0]
    terms = [names[column] for r, column in bad if r == row and column]
    return row, terms or [names[0]]
