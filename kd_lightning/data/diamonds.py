"""Prices of diamonds: the table of R's ggplot2, as Python's plotnine brings it along (MIT)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.data.table import COLUMNS, TableData
from kd_lightning.data.tables.reading import Table, read_table
from kd_lightning.errors import UserError


class Diamonds(TableData):
    """53,794 different diamonds, 26 inputs; the target is the natural logarithm of the price in US dollars.

    Args:
        settings: those of :class:`~kd_lightning.data.table.TableData` but the file and its columns.
    """

    GIVEN_TO_BASE = COLUMNS

    def __init__(self, **settings: Any) -> None:
        super().__init__(bundled="diamonds", target="log_price", drop=["price"], target_type="values", **settings)

    def read(self, file: str | None, bundled: str | None) -> Table:
        """The package's table with ``log_price``, each row once."""
        spec = find_spec("plotnine")
        path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data" / "diamonds.csv"
        if path is None or not path.is_file():
            raise UserError("data: the diamonds are in the package plotnine: pip install --no-deps plotnine")
        columns = dict(read_table(path).columns)
        codes = [np.unique(column.astype(str), return_inverse=True)[1].reshape(-1) for column in columns.values()]
        first = np.sort(np.unique(np.stack(codes, axis=1), axis=0, return_index=True)[1])
        columns["log_price"] = np.log(columns["price"])
        return Table(columns, "diamonds", ("log_price",)).rows(first)
