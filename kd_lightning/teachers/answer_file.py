"""Answers of somebody else's model, from a file: CSV, Parquet, NPY or NPZ."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.errors import UserError

FORMS = (".csv", ".csv.gz", ".parquet", ".npy", ".npz")


@dataclass(frozen=True)
class AnswerFile:
    """Columns by name, each of R rows.

    Attributes:
        columns: numbers (R,) or (R, K), or texts (R,); columns of a file without names are "0", "1", ….
        named: whether the file names them.
        where: key and file, for messages.
    """

    columns: dict[str, np.ndarray]
    named: bool
    where: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, key: str) -> np.ndarray:
        """A column; a UserError that names ``key`` where there is none of this name."""
        if name not in self.columns:
            raise UserError(f"{key}={name}: {self.where} has no such column, it has {_listed(self.columns)}")
        return self.columns[name]

    def numbers(self, names: Sequence[str], key: str) -> np.ndarray:
        """Columns side by side, float64 of shape (R, K)."""
        parts = [self.column(name, key) for name in names]
        for name, part in zip(names, parts, strict=True):
            if part.dtype.kind not in "biuf":
                bad = next((str(cell) for cell in part if not _is_number(cell)), "")
                raise UserError(
                    f"{self.where}: column {name} holds {bad!r}, which is no number: leave it out by columns=[…]"
                )
        return np.stack(parts, axis=1).astype(np.float64)


def read_answers(path: str, key: str) -> AnswerFile:
    """The file's columns.

    Args:
        path: one of :data:`FORMS`. An NPY file holds an array (R, K); an NPZ file arrays by name, each with R rows.
        key: configuration key of the path, for messages.

    Raises:
        UserError: it cannot be read.
    """
    where = f"{key}={path}"
    name = Path(path).name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            return AnswerFile(_csv(path, where), True, where)
        if name.endswith(".parquet"):
            return AnswerFile(_parquet(path, where), True, where)
        if name.endswith(".npy"):
            return AnswerFile(_of_array(np.load(path, allow_pickle=False), where), False, where)
        if name.endswith(".npz"):
            with np.load(path, allow_pickle=False) as arrays:
                return AnswerFile(_equally_long({k: np.asarray(arrays[k]) for k in arrays.files}, where), True, where)
    except UserError:
        raise
    except Exception as error:  # of the file's format, whatever it is
        raise UserError(f"{where}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    raise UserError(f"{where}: its name must end in one of {', '.join(FORMS)}")


def by_class(file: AnswerFile, columns: Sequence[str] | None, names: Sequence[str] | None, classes: int) -> list[str]:
    """The columns with each class's number, in the classes' order.

    Columns that are called as the classes are found in whatever order they stand, also with something before the name
    (``p_cat``). Without names they are taken as they stand.

    Args:
        file: the file.
        columns: as the user gave them; None: see above.
        names: of the data's classes.
        classes: C.
    """
    if columns is not None:
        if len(columns) != classes:
            raise UserError(f"teacher.columns: names {len(columns)} columns, the data have {classes} classes")
        return list(columns)
    wanted = [str(name) for name in names] if names is not None else [str(number) for number in range(classes)]
    numeric = [name for name, column in file.columns.items() if column.dtype.kind in "biuf" and column.ndim == 1]
    for candidates in (list(file.columns), numeric):
        for beginning in dict.fromkeys(("", *_beginnings(candidates, wanted))):
            if all(f"{beginning}{name}" in file.columns for name in wanted):
                return [f"{beginning}{name}" for name in wanted]
    if not file.named and len(file.columns) == classes:
        return list(file.columns)
    in_order = [str(number) for number in range(classes)]
    for beginning in dict.fromkeys(("", *_beginnings(numeric, in_order))):
        if all(f"{beginning}{number}" in file.columns for number in in_order):
            return [f"{beginning}{number}" for number in in_order]
    if len(numeric) != classes:
        raise UserError(
            f"{file.where}: has {len(numeric)} columns of numbers ({_listed(numeric)}), the data have {classes} classes "
            f"({_listed(wanted)}): name the classes' columns, in this order: teacher.columns=[…]"
        )
    raise UserError(
        f"{file.where}: its columns {_listed(numeric)} are not called as the data's classes ({_listed(wanted)}), so nobody "
        "knows which is which: name them in the classes' order: teacher.columns=[…]"
    )


def _beginnings(columns: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """What may stand before the classes' names."""
    return [name.removesuffix(wanted[0]) for name in columns if wanted and name.endswith(wanted[0])]


def _csv(path: str, where: str) -> dict[str, np.ndarray]:
    opened: Any = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        head = next(reader, None)
        if not head:
            raise UserError(f"{where}: is empty")
        head = [name.strip() for name in head]
        twice = sorted({name for name in head if head.count(name) > 1})
        if twice:
            raise UserError(f"{where}: two columns are called {twice[0]!r}")
        if all(_is_number(name) for name in head) and head != [str(k) for k in range(len(head))]:
            raise UserError(f"{where}: its first line holds numbers ({_listed(head)}): it has to name the columns")
        rows = []
        for row in reader:
            if row and len(row) != len(head):
                raise UserError(f"{where}: line {reader.line_num} has {len(row)} cells, the first line {len(head)}")
            if row:
                rows.append(row)
    if not rows:
        raise UserError(f"{where}: has no rows below its first line")
    return {name: _typed(column) for name, column in zip(head, zip(*rows, strict=True), strict=True)}


def _typed(cells: Sequence[str]) -> np.ndarray:
    """Whole numbers, numbers, or texts; an empty cell among numbers is nan. 0012 is an identifier, and stays a text."""
    if any(cell[0] == "0" and cell.isdigit() for cell in cells if len(cell) > 1):
        return np.array(cells, dtype=object)
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(cell) if cell.strip() else kind("nan") for cell in cells])
        except (ValueError, OverflowError):
            continue
    return np.array(cells, dtype=object)


def _parquet(path: str, where: str) -> dict[str, np.ndarray]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f'{where}: Parquet needs pyarrow: pip install "kd-lightning[parquet]"') from error
    table = parquet.read_table(path)
    return _equally_long({name: table[name].to_numpy() for name in table.column_names}, where)


def _of_array(array: np.ndarray, where: str) -> dict[str, np.ndarray]:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise UserError(f"{where}: holds {array.dtype} of shape {array.shape}, expected numbers (samples, classes)")
    rows = array.reshape(len(array), -1)
    return {str(k): rows[:, k] for k in range(rows.shape[1])}


def _equally_long(columns: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    lengths = {name: len(column) if column.ndim else 0 for name, column in columns.items()}
    if not lengths or len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise UserError(f"{where}: its arrays must have a row a sample, they have {lengths or 'nothing'}")
    return columns


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _listed(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:8]) + (f", … ({len(listed)})" if len(listed) > 8 else "")
