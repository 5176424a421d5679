"""A table's target columns that are texts: yes and no as 1 and 0, and numbers that are written as no program reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kd_lightning.data.tables.written_numbers import how_to_write, is_dressed, is_number
from kd_lightning.errors import UserError

_PAIRS = ({"yes": 1.0, "no": 0.0}, {"y": 1.0, "n": 0.0}, {"true": 1.0, "false": 0.0}, {"t": 1.0, "f": 0.0})


def as_yes_or_no(column: np.ndarray) -> np.ndarray:
    """A column of yes and no as 1 and 0, nan where missing; any other as it is."""
    if column.dtype != object:
        return column
    cells = {str(cell).lower() for cell in column.tolist() if cell is not None}
    pair = next((pair for pair in _PAIRS if cells and cells <= pair.keys()), None)
    if pair is None:
        return column
    return np.array([np.nan if cell is None else pair[str(cell).lower()] for cell in column.tolist()])


def refuse_texts(columns: Mapping[str, np.ndarray], key: str, otherwise: str) -> None:
    """Raise a UserError for the first column of texts: a cell that is no number, and what to write instead.

    Args:
        columns: that are to be numbers, by name.
        key: how the configuration asks for it, the head of the line.
        otherwise: what else the user may do.
    """
    for name, column in columns.items():
        if column.dtype == object:
            odd = [cell for cell in column.tolist() if cell is not None and not is_number(cell)] or [""]
            dressed = is_dressed(odd[0])
            fix = how_to_write(odd) if dressed else f"{odd[0]!r}, which is no number: mend or empty such cells"
            raise UserError(f"{key}: column {name!r} holds {fix}{otherwise}")


def refuse_dressed_numbers(name: str, column: np.ndarray, few: int) -> None:
    """Raise a UserError for a target of more than ``few`` numbers with currencies or commas, each of which would be a class."""
    cells = {cell for cell in column.tolist() if cell is not None} if column.dtype == object else set()
    if len(cells) > few and all(map(is_dressed, cells)):
        refuse_texts({name: column}, "data.target", "; as they stand they are classes by data.target_type=classes")


def several_in_one(names: Sequence[str]) -> str | None:
    """What a user should know of classes like ``a|c``, which are fewer labels put together; None where there are none."""
    for separator in "|;,":
        parts = {part.strip() for name in names for part in name.split(separator)}
        if len(parts) < len(names):
            like = next(name for name in names if separator in name)
            return (
                f"each combination is a class of its own ({like!r}); several labels a row are a column of yes and no each, "
                "data.target=[…]"
            )
    return None
