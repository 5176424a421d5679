"""Tables whose columns a run knows by name, for ``kd-predict``: rows of numbers and categories, and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.config.build import instantiate
from kd_lightning.data.images.decode import shown
from kd_lightning.data.tables.encoding import TableEncoder
from kd_lightning.data.tables.reading import read_table
from kd_lightning.data.tables.unfamiliar import unfamiliar
from kd_lightning.data.texts.hashing import HashingTokenizer
from kd_lightning.data.texts.reading import read_columns
from kd_lightning.data.texts.rows import PaddedBatch, TextRows, padding_of
from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun

TABLES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
LINES = ".txt"
"""A text a line, for a run on texts."""


@dataclass(frozen=True)
class Sample:
    """One sample, not read yet.

    Attributes:
        name: of the file, and the line or row in it.
        read: its input (...), as :meth:`OpenRun.predict` takes it; raises a UserError, of one line, where that cannot be.
    """

    name: str
    read: Callable[[], Tensor]


class TableColumns:
    """Rows of a table as the run's data made them: by the encoder that was fitted to its training rows.

    Args:
        encoder: as ``result.json`` has it.
    """

    def __init__(self, encoder: TableEncoder) -> None:
        self._encoder = encoder
        self.notes: list[str] = []

    def __call__(self, path: str) -> Iterator[Sample]:
        """A sample a row, named by its number from 1."""
        table = read_table(path)
        rows = self._encoder.encode(table)
        self.notes += [f"{shown(path)}: {said}" for said in unfamiliar(self._encoder.codes, table)]
        for number, row in enumerate(rows, 1):
            yield Sample(f"{shown(path)}:{number}", partial(_itself, row))

    def together(self, inputs: Sequence[Tensor]) -> Tensor:
        """Rows as one tensor."""
        return torch.stack(list(inputs))


class TextColumn:
    """Texts as the run's data made them: by its tokenizer.

    Args:
        column: with the texts.
        id: the column that names them, or None.
        tokenizer: the run's.
        max_length: the most tokens of a text.
    """

    def __init__(self, column: str, id: str | None, tokenizer: Any, max_length: int) -> None:
        self._column, self._id, self._tokenizer, self._max_length = column, id, tokenizer, max_length
        self._pad = PaddedBatch(padding_of(tokenizer))
        self.notes: list[str] = []

    def __call__(self, path: str) -> Iterator[Sample]:
        """A sample a text, named by its identifier, or its number from 1."""
        columns = {self._column: _lines(path)} if path.lower().endswith(LINES) else read_columns(path, "input")
        if self._column not in columns:
            raise UserError(f"{shown(path)}: has no column {self._column!r} with texts; it has {', '.join(columns)}")
        texts = columns[self._column]
        empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
        if empty:
            rows_of = f"row {empty[0]} has" if len(empty) == 1 else f"{len(empty)} rows (the first: {empty[0]}) have"
            self.notes.append(f"{shown(path)}: {rows_of} no text, and an answer that says nothing")
        names = columns.get(self._id or "") or [f"{shown(path)}:{number}" for number in range(1, len(texts) + 1)]
        rows = TextRows(texts, None, self._tokenizer, self._max_length)
        for row, name in enumerate(names):
            yield Sample(name, partial(_itself, rows[row]["input_ids"]))

    def together(self, inputs: Sequence[Tensor]) -> Any:
        """Texts padded to the longest, with their mask, by name."""
        return self._pad([{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in inputs])


def reader_of_columns(run: OpenRun) -> TableColumns | TextColumn | None:
    """What reads tables for a run whose data were columns by name; None for other data."""
    reading = run.preprocessing.reading or {}
    if "table" in reading:
        return TableColumns(TableEncoder.from_plain(reading["table"]))
    if "text" in reading:
        told = reading["text"]
        node = run.spec.config["data"].get("tokenizer")
        tokenizer = HashingTokenizer() if node is None else instantiate(node, "data.tokenizer")
        return TextColumn(told["column"], told["id"], tokenizer, told["max_length"])
    return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)}: cannot be read as UTF-8 text: {error}") from error


def _itself(row: Tensor) -> Tensor:
    return row
