"""Cells that no training survives: infinite numbers, and targets beyond what a float32 holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_lightning.data.tables.reading import Table
from kd_lightning.errors import UserError


def refuse_infinite(table: Table, inputs: Sequence[str], targets: Sequence[str]) -> None:
    """Raise a UserError for the first such cell, with its row (from 1, below the names) and column.

    Args:
        table: all of its rows: also one of the test split would spoil the figures.
        inputs: columns that are standardised as they are, float64.
        targets: columns that become float32.
    """
    for name in (*targets, *inputs):
        column = table.columns[name]
        if column.dtype == object:
            continue
        with np.errstate(over="ignore"):
            kept = column.astype(np.float32) if name in targets else column
        odd = np.isinf(kept)
        if odd.any():
            row = int(odd.argmax())
            where = f"data: {table.name}, row {row + 1}: column {name!r} holds {column[row]:g}"
            if np.isinf(column[row]):
                raise UserError(f"{where}, values must be finite: mend it, or empty the cell if nobody knows the value")
            raise UserError(f"{where}, more than a float32 holds (3.4e+38): write the target in a larger unit")
