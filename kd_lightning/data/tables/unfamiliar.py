"""Rows that a student answers for as for any other, although nothing like them was in its training: said in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_lightning.data.tables.encoding import CATEGORY, CLIP, ColumnCode, as_categories, missing
from kd_lightning.data.tables.reading import Table


def unfamiliar(codes: Sequence[ColumnCode], table: Table) -> list[str]:
    """A line for each column with new categories or far values, and one for rows with nothing in them; rows from 1.

    A number is far where it is beyond the training rows' smallest or largest by more than the distance between the two
    (where a run of old does not know these: where it is cut off).
    """
    empty = np.all([missing(table.columns[code.name]) for code in codes], axis=0)
    said = []
    if empty.any():
        said.append(f"{_rows(empty)} nothing in any column of inputs: answered like an average row")
    for code in codes:
        column = table.columns[code.name]
        if code.kind == CATEGORY:
            texts = as_categories(column)
            strange = np.array([text is not None and text not in code.categories for text in texts.tolist()])
            what = "that is in no training row: taken as none of its categories"
        else:
            strange, what = _far(code, column)
        if strange.any():
            first = table.columns[code.name][int(strange.argmax())]
            value = repr(first) if isinstance(first, str) else f"{first:g}"
            said.append(f"{_rows(strange)} a value of {code.name!r} {what} (the first: {value})")
    return said


def _far(code: ColumnCode, column: np.ndarray) -> tuple[np.ndarray, str]:
    with np.errstate(invalid="ignore"):
        if code.low is None or code.high is None:
            return np.abs(column - code.mean) > CLIP * code.std, f"more than {CLIP:g} standard deviations off"
        width = code.high - code.low
        far = (column < code.low - width) | (column > code.high + width)
    return far, f"far off the training rows' {code.low:g} to {code.high:g}"


def _rows(which: np.ndarray) -> str:
    count, first = int(which.sum()), int(which.argmax()) + 1
    return f"row {first} has" if count == 1 else f"{count} rows (the first: {first}) have"
