"""Tables in memory (of pandas, of polars) whose columns are taken by their names: models know them by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_lightning.errors import UserError

_SHOWN = 6


def is_table(value: Any) -> bool:
    """Whether a value has columns with names, and gives them as one array."""
    return hasattr(value, "to_numpy") and hasattr(value, "columns")


def names_of(table: Any) -> list[str]:
    """What its columns are called, in their order."""
    return [str(name) for name in table.columns]


def in_order(key: str, table: Any, names: Sequence[str]) -> Any:
    """A table with its columns in the order of ``names``.

    Raises:
        UserError: it lacks some of them, has others, or two of one name in another order.
    """
    mine = names_of(table)
    if mine == [*names]:
        return table
    told = {
        "missing": [name for name in names if name not in mine],
        "new": [name for name in mine if name not in names],
    }
    told["twice there"] = sorted({name for name in mine if mine.count(name) > 1})
    wrong = [
        f"{', '.join(found[:_SHOWN])}{' ...' * (len(found) > _SHOWN)} {what}" for what, found in told.items() if found
    ]
    if wrong:
        raise UserError(f"{key}: the columns are not those of the training table: {'; '.join(wrong)}")
    by_name = dict(zip(mine, table.columns, strict=True))
    return table[[by_name[name] for name in names]]


def numbers(key: str, table: Any) -> np.ndarray:
    """Its values, (rows, columns).

    Raises:
        UserError: they are no numbers.
    """
    values: np.ndarray = np.ascontiguousarray(table.to_numpy())
    if values.dtype.kind not in "biuf":
        raise UserError(f"{key}: the table's columns must be numbers, as those of the training table were")
    return values
