"""How a row of a table becomes numbers: columns as numbers or categories, fitted on training rows alone.

===========  ==================================================================================================
a column is  becomes
===========  ==================================================================================================
number       ``(x - mean) / std`` of the training rows, at most ``clip`` up and down; missing: the training median
category     a number 0 or 1 for each category among the training rows; missing, and new ones: all 0
===========  ==================================================================================================

A column with one value in all training rows says nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.tables.reading import Table
from kd_lightning.data.tables.written_numbers import is_number
from kd_lightning.errors import UserError

CLIP = 10.0
"""Standard deviations: a column that hardly varies in training may be anything later."""
NUMBER, CATEGORY = "number", "category"
_LISTED = 4
_MANY_NUMBERS, _SLIPS = 20, 0.05  # so many different cells, of which so few are no numbers, are numbers with slips


@dataclass(frozen=True)
class ColumnCode:
    """One column's code.

    Attributes:
        name: of the column.
        kind: "number" or "category".
        mean, std, median: of a number's training rows.
        low, high: the smallest and the largest of these; None where a run of old did not keep them.
        lacking: the part of the training rows that has no value, 0 to 1; None where a run of old did not keep it.
        categories: of a category, in their order.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    median: float = 0.0
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    lacking: float | None = None

    @property
    def features(self) -> list[str]:
        """Names of the numbers that it becomes."""
        return [self.name] if self.kind == NUMBER else [f"{self.name}={category}" for category in self.categories]

    def encode(self, column: np.ndarray) -> np.ndarray:
        """A column (N,) as float32 (N, F)."""
        if self.kind == CATEGORY:
            texts = as_categories(column)
            return np.stack([texts == category for category in self.categories], axis=1).astype(np.float32)
        if column.dtype == object:
            raise UserError(f"column {self.name!r} holds texts, it held numbers where the table was learned from")
        filled = np.where(np.isnan(column), self.median, column)
        return np.clip((filled - self.mean) / self.std, -CLIP, CLIP).astype(np.float32)[:, None]


class TableEncoder:
    """Makes inputs (N, F) of a table's rows.

    Args:
        codes: of the columns, in their order.
    """

    def __init__(self, codes: Sequence[ColumnCode]) -> None:
        self.codes = list(codes)

    @classmethod
    def fitted(
        cls, table: Table, columns: Sequence[str], categorical: Sequence[str], most_categories: int
    ) -> tuple[TableEncoder, list[str]]:
        """Fit on the training rows.

        Args:
            table: of these rows.
            columns: that become inputs.
            categorical: those of numbers that are categories.
            most_categories: a text with more different ones is left out.

        Returns:
            The encoder, and what a user should know, a few words each.
        """
        codes: list[ColumnCode] = []
        constant, unlike, imputed = [], [], []
        for name in columns:
            column = table.columns[name]
            if column.dtype == object and name not in categorical:
                _refuse_numbers_with_slips(name, column)
            code = _category(name, column) if name in categorical or column.dtype == object else _number(name, column)
            if code is None:
                constant.append(name)
            elif len(code.categories) > most_categories and name not in categorical:
                unlike.append(f"{name} ({len(code.categories):,} different texts)")
            else:
                gaps = int(missing(column).sum())
                codes.append(replace(code, lacking=gaps / len(column)))
                if gaps:
                    imputed.append(
                        f"{name} ({gaps:,}, {'none of its categories' if code.categories else 'the median'})"
                    )
        if not codes:
            raise UserError(
                "data: no column is left as input: all are constant in the training rows, left out, or texts"
            )
        notes = []
        if constant:
            notes.append(f"left out, one value in all training rows: {_named(constant)}")
        if unlike:
            notes.append(f"left out, no categories: {_named(unlike)} (data.categorical keeps one)")
        if imputed:
            notes.append(f"missing values filled: {_named(imputed)}")
        return cls(codes), notes

    @property
    def feature_names(self) -> list[str]:
        return [name for code in self.codes for name in code.features]

    def encode(self, table: Table) -> Tensor:
        """Inputs float32 (N, F).

        Raises:
            UserError: a column is not there, or holds texts instead of numbers.
        """
        absent = [code.name for code in self.codes if code.name not in table.columns]
        if absent:
            raise UserError(f"{table.name}: has no column {absent[0]!r}; it has {', '.join(table.columns)}")
        return torch.from_numpy(np.concatenate([code.encode(table.columns[code.name]) for code in self.codes], axis=1))

    def described(self) -> str:
        """``7 numbers and 5 categories in 58 columns of inputs``, in short."""
        numbers = sum(code.kind == NUMBER for code in self.codes)
        categories = [f"{code.name} ({len(code.categories)})" for code in self.codes if code.kind == CATEGORY]
        told = [f"{numbers} number{'s' * (numbers != 1)}"] if numbers else []
        if categories:
            told.append(f"categories {_named(categories, 8)}")
        return f"columns: {', '.join(told)}"

    def as_plain(self) -> list[dict[str, Any]]:
        """For ``result.json``."""
        return [
            {"name": c.name, "lacking": c.lacking}
            | (
                {"categories": list(c.categories)}
                if c.kind == CATEGORY
                else {"mean": c.mean, "std": c.std, "median": c.median, "low": c.low, "high": c.high}
            )
            for c in self.codes
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> TableEncoder:
        """What :meth:`as_plain` gave, as an encoder again."""
        codes = []
        for entry in plain:
            given: dict[str, Any] = {"name": str(entry["name"]), "lacking": entry.get("lacking")}
            if "categories" in entry:
                codes.append(ColumnCode(**given, kind=CATEGORY, categories=tuple(entry["categories"])))
            else:
                numbers = {key: entry[key] for key in ("mean", "std", "median")}
                codes.append(ColumnCode(**given, kind=NUMBER, **numbers, low=entry.get("low"), high=entry.get("high")))
        return cls(codes)


def as_categories(column: np.ndarray) -> np.ndarray:
    """A column's values as texts, object (N,): whole numbers without a point, None where missing."""
    if column.dtype == object:
        return column
    return np.array(
        [None if x != x else f"{int(x)}" if x == int(x) else repr(x) for x in column.tolist()], dtype=object
    )


def in_order(categories: set[str]) -> list[str]:
    """Sorted: numbers by size, texts by their letters."""
    try:
        return sorted(categories, key=float)
    except ValueError:
        return sorted(categories)


def _category(name: str, column: np.ndarray) -> ColumnCode | None:
    present = in_order({text for text in as_categories(column).tolist() if text is not None})
    constant = len(present) < 2 and not (present and missing(column).any())
    return None if constant else ColumnCode(name, CATEGORY, categories=tuple(present))


def _refuse_numbers_with_slips(name: str, column: np.ndarray) -> None:
    """Raise a UserError for a column of numbers in which a few cells are none: as texts they would all be left out."""
    cells = list(dict.fromkeys(text for text in column.tolist() if text is not None))
    slips = [text for text in cells if not is_number(text)]
    if len(cells) > _MANY_NUMBERS and len(slips) <= _SLIPS * len(cells):
        which = f"{slips[0]!r} is none" if slips else "a cell of other rows than the training's is none"
        raise UserError(
            f"data: column {name!r} holds numbers, but {which}: mend or empty it, or say data.drop=[{name}] or "
            f"data.categorical=[{name}]"
        )


def _number(name: str, column: np.ndarray) -> ColumnCode | None:
    known = column[~np.isnan(column)]
    if not len(known):
        return None
    median, mean, std = float(np.median(known)), float(known.mean()), float(known.std())
    if std <= 1e-12 * abs(mean):
        return None
    return ColumnCode(name, NUMBER, mean, std, median, low=float(known.min()), high=float(known.max()))


def missing(column: np.ndarray) -> np.ndarray:
    """Which cells of a column are empty."""
    if column.dtype == object:
        return np.array([value is None for value in column.tolist()])
    return np.isnan(column)


def _named(names: Sequence[str], most: int = _LISTED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
