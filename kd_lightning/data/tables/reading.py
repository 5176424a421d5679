"""A table as columns: from CSV (also compressed by gzip), Parquet, or what packages bring with them."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kd_lightning.errors import UserError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""Cells, in small letters and without spaces around them, that hold no value."""
_PANDAS_MISSING = frozenset({"NaTType", "NAType"})
SHIPPED = {"bikeshare": "bikeshare.csv.gz"}
"""Tables in this package, by name; their licences stand beside them in ``data/shipped``."""
OF_SKLEARN = ("breast_cancer", "diabetes", "iris", "linnerud", "wine")


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name.

    Attributes:
        columns: float64 of shape (N,), nan where a value is missing, or an object array of texts, None where missing.
        name: of the file or set, for messages.
        target: the target's columns where the source says them.
    """

    columns: Mapping[str, np.ndarray]
    name: str
    target: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self, chosen: Any) -> Table:
        """Some of the rows, by their positions."""
        return Table({name: column[chosen] for name, column in self.columns.items()}, self.name, self.target)


def read_table(path: str | Path) -> Table:
    """A ``.csv`` or ``.tsv`` (``.gz`` behind it, if compressed) whose first line names the columns, or a ``.parquet``.

    Raises:
        UserError: the file is not there or cannot be read, naming the line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"data.file: no such file: {path}")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path)
    tab = ".tsv" in (suffix.lower() for suffix in path.suffixes)
    with _opened(path) as stream:
        return Table(text_columns(_records(stream, path, "\t" if tab else None)), path.name)


def bundled_table(name: str) -> Table:
    """A table that this package or scikit-learn brings with it."""
    if name in SHIPPED:
        content = files("kd_lightning.data.shipped").joinpath(SHIPPED[name]).read_bytes()
        stream = io.StringIO(gzip.decompress(content).decode("utf-8"), newline="")
        return Table(text_columns(_records(stream, Path(SHIPPED[name]), ",")), name)
    if name not in OF_SKLEARN:
        raise UserError(f"data.bundled: there is no {name!r}: choose one of {', '.join((*SHIPPED, *OF_SKLEARN))}")
    import sklearn.datasets  # slow to import, and only needed here

    loaded = getattr(sklearn.datasets, f"load_{name}")()
    inputs, target = np.asarray(loaded.data, dtype=np.float64), np.asarray(loaded.target)
    columns = {str(title): inputs[:, k] for k, title in enumerate(loaded.feature_names)}
    if target.ndim == 2:
        named = {str(title): target[:, k].astype(np.float64) for k, title in enumerate(loaded.target_names)}
    elif getattr(loaded, "target_names", None) is not None:
        named = {"target": np.array([str(loaded.target_names[k]) for k in target], dtype=object)}
    else:
        named = {"target": target.astype(np.float64)}
    return Table({**columns, **named}, name, tuple(named))


def given_table(columns: Any, name: str = "the table") -> Table:
    """A table of what a user has in memory: a mapping of columns by name, or a pandas DataFrame.

    Raises:
        UserError: its columns are of different lengths, or it has none.
    """
    made = {str(title): as_column(list(columns[title])) for title in columns}
    lengths = {title: len(column) for title, column in made.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{title} {length}" for title, length in list(lengths.items())[:6]) or "none"
        raise UserError(f"{name}: its columns must have as many rows each, got {told}")
    return Table(made, name)


def text_columns(records: Iterator[Sequence[str]]) -> dict[str, np.ndarray]:
    """Columns of the records of a text file, the first of which names them; numbers where all cells are some."""
    names = next(records)
    cells = list(zip(*records, strict=True))
    if not cells:
        raise UserError("data.file: the table has no rows below its names")
    return {name: as_column(list(column)) for name, column in zip(names, cells, strict=True)}


def as_column(cells: Sequence[Any]) -> np.ndarray:
    """Numbers (true and false are 1 and 0) as float64, anything else as texts."""
    known = [None if _is_missing(cell) else cell for cell in cells]
    try:
        return np.array([np.nan if cell is None else _number(cell) for cell in known], dtype=np.float64)
    except (ValueError, TypeError):  # a text, or a date, list, … of a Parquet file or a DataFrame
        return np.array([None if cell is None else str(cell).strip() for cell in known], dtype=object)


def _is_missing(cell: Any) -> bool:
    if cell is None or (isinstance(cell, float) and cell != cell) or type(cell).__name__ in _PANDAS_MISSING:
        return True
    return isinstance(cell, str) and cell.strip().lower() in MISSING


def _number(cell: Any) -> float:
    if isinstance(cell, str) and cell.strip().lower() in ("true", "false"):
        return float(cell.strip().lower() == "true")
    return float(cell)


def _records(stream: TextIO, path: Path, delimiter: str | None) -> Iterator[list[str]]:
    if delimiter is None:
        head = stream.read(1 << 16)
        stream.seek(0)
        first = head.partition("\n")[0]
        delimiter = max((",", ";", "\t"), key=first.count)
    reader = csv.reader(stream, delimiter=delimiter)
    names: list[str] | None = None
    try:
        for record in reader:
            if not record:
                continue
            if names is None:
                names = [name.strip().removeprefix("\ufeff") for name in record]
                twice = sorted({name for name in names if names.count(name) > 1})
                if twice:
                    raise UserError(
                        f"data.file: {path}: the first line names {twice[0]!r} twice: columns need names of their own"
                    )
                yield names
                continue
            if len(record) != len(names):
                raise UserError(
                    f"data.file: {path}: line {reader.line_num} has {len(record)} cells, the first line names {len(names)} columns"
                )
            yield record
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"data.file: {path}: cannot be read after line {reader.line_num}: {error}") from error
    if names is None:
        raise UserError(f"data.file: {path}: is empty")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
                yield io.StringIO(stream.read(), newline="")
            return
        with open(path, encoding="utf-8", newline="") as stream:
            yield stream
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"data.file: {path} cannot be read: {error}") from error


def _parquet(path: Path) -> Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")  # an extra, which ships no types
    except ImportError:
        raise UserError(
            f"data.file: {path}: Parquet files need pyarrow: pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        read = parquet.read_table(path)
    except Exception as error:  # whatever pyarrow raises
        raise UserError(f"data.file: {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return Table({str(name): as_column(read.column(name).to_pylist()) for name in read.column_names}, path.name)
