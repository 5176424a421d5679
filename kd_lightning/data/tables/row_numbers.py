"""Columns that number the rows: identifiers or the order of the file, from which nothing is learned that holds elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_lightning.data.tables.reading import Table

_FEW = 20  # rows in which whole numbers may well rise by chance or design


def row_numbers(table: Table, columns: Sequence[str]) -> list[str]:
    """Those of ``columns`` that hold a whole number of its own in each row, and rise or fall, or leave no number out."""
    return [name for name in columns if _numbers_rows(table.columns[name])]


def _numbers_rows(column: np.ndarray) -> bool:
    if column.dtype == object or len(column) < _FEW or not bool((column == np.round(column)).all()):
        return False
    steps = np.diff(column)
    if bool((steps > 0).all() or (steps < 0).all()):
        return True
    return column.max() - column.min() == len(column) - 1 and len(np.unique(column)) == len(column)
