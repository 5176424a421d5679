"""Columns of numbers that are read as texts, for how they are written or for the words among them."""

from __future__ import annotations

import numpy as np

from kd_lightning.data.tables.written_numbers import how_to_write, is_dressed, is_number

LEAST = 20
"""So many different cells: of fewer, categories are a fair reading."""
MOSTLY = 0.8
"""The share of numbers among different cells from which on the others are strange."""
_SIGNS = frozenset(",$€£¥%")  # without one, digits with points and blanks are dates, telephone numbers, …


def unread_numbers(name: str, column: np.ndarray, most_categories: int) -> str | None:
    """What is worth a warning of a column of texts, training rows (N,); None where it is one.

    Args:
        name: of the column.
        column: its cells.
        most_categories: with more different texts it is left out.
    """
    if column.dtype != object:
        return None
    cells = list(dict.fromkeys(text for text in column.tolist() if text is not None))
    odd = [text for text in cells if not is_number(text)]
    if len(cells) <= LEAST or not odd:
        return None
    becomes = "it is left out" if len(cells) > most_categories else f"its {len(cells)} texts are categories"
    numbers = [text for text in odd if is_dressed(text)]
    if len(numbers) == len(odd) and any(_SIGNS & set(text) for text in odd):
        comma = ", with a comma" if any("," in text for text in odd) else ""
        return f"column {name!r} holds numbers{comma}, like {how_to_write(odd)}; as it stands, {becomes}"
    if len(odd) <= (1 - MOSTLY) * len(cells):
        return f"column {name!r} holds numbers, but {odd[0]!r} is none, so {becomes}: mend or empty such cells"
    return None
