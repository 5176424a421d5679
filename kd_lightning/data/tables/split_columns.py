"""The column by which rows are split: groups by their values, moments in their order.

Texts are sorted by their letters, which is the order in time only where years come first and every part has its full width.
"""

from __future__ import annotations

import re

import numpy as np

from kd_lightning.errors import UserError

_MOMENT = re.compile(
    r"\d{4}([-/.]?(\d\d|Q\d|H\d|W\d\d))?([-/.]?\d\d)?([T ]\d\d(:?\d\d(:?\d\d(\.\d+)?)?)?)? ?(Z|UTC|[+-]\d\d:?\d\d)?"
)
_DIGIT = re.compile(r"\d")


def numbers_of(column: np.ndarray, name: str, by_time: bool) -> np.ndarray:
    """A group's or moment's number by row, (N,) int64; moments in their order.

    Raises:
        UserError: a row has none; texts that do not sort as time does.
    """
    missing = sum(value is None or value != value for value in column.tolist())
    if missing:
        raise UserError(
            f"data: {missing:,} rows have no {name}, by which the table is split: leave them out or fill them"
        )
    if by_time and column.dtype == object:
        _refuse_unordered(column.tolist(), name)
    return np.unique(column, return_inverse=True)[1].reshape(-1)


def _refuse_unordered(texts: list[str], name: str) -> None:
    """Refuse ``17/05/2023``, ``2023-5-17``, ``May 17`` and mixtures of forms: sorted by letters, the future is trained on."""
    shapes: dict[str, str] = {}
    for text in texts:
        if not _MOMENT.fullmatch(text):
            raise UserError(
                f"data.time={name}: {text!r} sorts by its letters, not in time: write moments as 2023-05-17 or "
                "2023-05-17 08:30:00, or as numbers, in the file"
            )
        shapes.setdefault(_DIGIT.sub("9", text), text)
    longest = max(shapes, key=len)
    other = next((text for shape, text in shapes.items() if not longest.startswith(shape)), None)
    if other is not None:
        raise UserError(
            f"data.time={name}: {other!r} and {shapes[longest]!r} are of two forms, which do not sort in time: write "
            "all moments alike"
        )
