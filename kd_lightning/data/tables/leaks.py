"""What of a table tells the answer beforehand: a column that is the target in other words, rows that are in two parts of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kd_lightning.data.tables.reading import Table

LEAST_ROWS = 20
LEAST = 0.05
"""The share of rows that are training rows too from which on it is told: fewer are in many a published table."""
_LINE = 1e-5  # what a correlation may lack of 1 where values are the target in another unit, rounded


def leaks(
    table: Table, columns: Sequence[str], targets: Sequence[str], classes: bool, parts: Mapping[str, np.ndarray]
) -> list[str]:
    """What is worth a warning, a line each.

    Args:
        table: all rows.
        columns: the inputs.
        targets: the columns to be predicted.
        classes: the target is a class; False: a value, or several.
        parts: positions of rows, under "train", "validation" and "test".
    """
    train = parts["train"]
    told = (
        []
        if len(columns) < 2 or len(train) < LEAST_ROWS
        else _copies_of_target(table, columns, targets, classes, train)
    )
    return told + _shared_rows(table, [*columns, *targets], parts)


def _copies_of_target(
    table: Table, columns: Sequence[str], targets: Sequence[str], classes: bool, train: np.ndarray
) -> list[str]:
    same = _names_the_classes if classes else _on_a_line
    told = []
    for target in targets:
        answer = table.columns[target][train]
        found = [name for name in columns if same(table.columns[name][train], answer)]
        if found:
            told.append(
                f"{', '.join(found)}: tells the target {target} exactly, as the same in other words would: "
                f"data.drop=[{','.join(found)}] leaves it out"
            )
    return told


def _names_the_classes(column: np.ndarray, answer: np.ndarray) -> bool:
    """Each of its values stands for a class, and each class for one of its values."""
    pairs = [
        (a, b)
        for a, b in zip(column.tolist(), answer.tolist(), strict=True)
        if a == a and b == b and None not in (a, b)
    ]
    different = set(pairs)
    values, names = ({pair[k] for pair in different} for k in (0, 1))
    return len(pairs) >= LEAST_ROWS and 2 <= len(values) == len(names) == len(different) <= len(pairs) / 4


def _on_a_line(column: np.ndarray, answer: np.ndarray) -> bool:
    """It is the target in another unit."""
    if object in (column.dtype, answer.dtype):
        return False
    known = ~(np.isnan(column) | np.isnan(answer))
    x, y = column[known], answer[known]
    if len(x) < LEAST_ROWS or len(np.unique(x)) < LEAST_ROWS / 2:
        return False
    return bool(x.std() > 0 and y.std() > 0 and abs(np.corrcoef(x, y)[0, 1]) > 1 - _LINE)


def _shared_rows(table: Table, columns: Sequence[str], parts: Mapping[str, np.ndarray]) -> list[str]:
    """Rows that are equal in all columns, where one column nearly tells rows apart: by chance none would be."""
    rows = _digests([table.columns[name] for name in columns])
    different = len(np.unique(rows))
    telling = any(len(set(table.columns[name].tolist())) >= different / 2 for name in columns)
    told = []
    for part in ("validation", "test") if telling else ():
        shared = int(np.isin(rows[parts[part]], rows[parts["train"]]).sum())
        if shared >= max(2, LEAST * len(parts[part])):
            told.append(
                f"{shared:,} of the {len(parts[part]):,} {part} rows are training rows too, equal in every column: their figures say "
                "what is remembered; leave repeated rows out, or split by a group (data.split=group)"
            )
    return told


def _digests(columns: Sequence[np.ndarray]) -> np.ndarray:
    """A number for each row, (N,) uint64, equal for equal rows."""
    factors = np.random.default_rng(0).integers(1, 2**63, len(columns), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column, factor in zip(columns, factors, strict=True):
        if column.dtype == object:
            places = {value: place for place, value in enumerate(dict.fromkeys(column.tolist()))}
            bits = np.array([places[value] for value in column.tolist()], dtype=np.uint64)
        else:
            bits = np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)
        total += (bits ^ (bits >> np.uint64(32))) * factor
    return total
