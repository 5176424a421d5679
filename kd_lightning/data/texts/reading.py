"""Columns of texts from CSV or Parquet: every cell stays what was written."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError


def read_columns(path: str, key: str) -> dict[str, list[str]]:
    """The columns of a ``.csv``, ``.tsv`` (each also ``.gz``) or ``.parquet`` by name.

    Raises:
        UserError: it cannot be read; ``key`` names the path in the configuration.
    """
    where = f"{key}={path}"
    if not Path(path).is_file():
        raise UserError(f"{where}: no such file")
    name = Path(path).name.lower()
    try:
        if name.endswith(".parquet"):
            return _parquet(path, where)
        opened: Any = gzip.open if name.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return _delimited(file, "\t" if ".tsv" in name else ",", where)
    except UserError:
        raise
    except (OSError, UnicodeError, csv.Error, EOFError, ValueError) as error:
        raise UserError(f"{where}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def as_labels(cells: Sequence[str]) -> list[Any]:
    """Whole numbers, numbers, or texts, as all of the cells are; None where a cell is empty."""
    given = [cell.strip() for cell in cells]
    for kind in (int, float):
        try:
            return [kind(cell) if cell else None for cell in given]
        except ValueError:
            continue
    return [cell or None for cell in given]


def _delimited(file: Any, delimiter: str, where: str) -> dict[str, list[str]]:
    csv.field_size_limit(min(sys.maxsize, 1 << 30))  # a text may be long
    reader = csv.reader(file, delimiter=delimiter)
    head = [name.strip() for name in next(reader, [])]
    if not head:
        raise UserError(f"{where}: is empty")
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice:
        raise UserError(f"{where}: two columns are called {twice[0]!r}")
    rows = []
    for row in reader:
        if row and len(row) != len(head):
            raise UserError(
                f"{where}: line {reader.line_num} has {len(row)} cells, the first line names {len(head)} columns (a text "
                'with a comma in it stands in "quotes")'
            )
        if row:
            rows.append(row)
    if not rows:
        raise UserError(f"{where}: has no rows below its first line")
    return {name: list(column) for name, column in zip(head, zip(*rows, strict=True), strict=True)}


def _parquet(path: str, where: str) -> dict[str, list[str]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f'{where}: Parquet needs pyarrow: pip install "kd-lightning[parquet]"') from error
    table = parquet.read_table(path)
    return {
        name: ["" if cell is None else str(cell) for cell in table[name].to_pylist()] for name in table.column_names
    }
