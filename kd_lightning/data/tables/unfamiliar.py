"""Rows that a student answers for as for any other, although nothing like them was in its training: said in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kd_lightning.data.tables.encoding import CATEGORY, CLIP, ColumnCode, as_categories, missing
from kd_lightning.data.tables.reading import Table

_MOST = 0.5  # of a column's values: fewer gaps are what gaps are like


def unfamiliar(codes: Sequence[ColumnCode], table: Table) -> list[str]:
    """A line for each column with new categories, far values or many more gaps, and one for rows with nothing in them.

    Rows count from 1.

    A number is far where it is beyond the training rows' smallest or largest by more than the distance between the two
    (where a run of old does not know these: where it is cut off).
    """
    empty = np.all([missing(table.columns[code.name]) for code in codes], axis=0)
    said = []
    if empty.any():
        said.append(f"{_rows(empty)} nothing in any column of inputs: answered like an average row")
    for code in codes:
        column = table.columns[code.name]
        said += _gaps(code, missing(column), ~empty)
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


def _gaps(code: ColumnCode, lacks: np.ndarray, rows: np.ndarray) -> list[str]:
    """What is said of a column of which most values are missing among ``rows``, where training had few such rows."""
    lacks, count = lacks & rows, int(rows.sum())
    share = lacks.sum() / max(1, count)
    if share <= _MOST or (code.lacking is None and share < 1) or not _more_gaps(share, code.lacking or 0.0, count):
        return []
    has = f"none of the {count} rows has a" if share == 1 and count > 1 else f"{_rows(lacks)} no"
    had = {None: "", 0.0: ", which all training rows have"}
    before = had.get(code.lacking, f", which {1 - (code.lacking or 0):.0%} of the training rows have")
    filled = "none of its categories" if code.kind == CATEGORY else f"the training rows' median, {code.median:g}"
    return [f"{has} value of {code.name!r}{before}: taken as {filled}"]


def _more_gaps(share: float, before: float, count: int) -> bool:
    """Whether so many gaps in ``count`` rows are no chance: by Chernoff's bound, of which one in a thousand is."""
    if before >= share:
        return False
    if before == 0:
        return True
    distance = share * math.log(share / before)
    if share < 1:
        distance += (1 - share) * math.log((1 - share) / (1 - before))
    return count * distance > math.log(1000)


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
