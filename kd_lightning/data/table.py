"""Rows of a table: CSV, Parquet, or a set that packages bring with them; columns by name, one or several of them the target.

Everything that is learned of the columns (which categories there are, means, what fills a gap) is learned of the training
rows alone: of all of them, also those that ``train_size`` leaves out, so that a teacher of more rows sees the same inputs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.labels import Labels, read_labels
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.places import Places
from kd_lightning.data.split import hide_labels, keep_first, stratified_order
from kd_lightning.data.tables.encoding import TableEncoder, as_categories, in_order
from kd_lightning.data.tables.finite import refuse_infinite
from kd_lightning.data.tables.leaks import leaks
from kd_lightning.data.tables.reading import Table, bundled_table, read_table
from kd_lightning.data.tables.row_numbers import row_numbers
from kd_lightning.data.tables.sentinels import sentinel
from kd_lightning.data.tables.split_columns import numbers_of
from kd_lightning.data.tables.splitting import split_rows
from kd_lightning.data.tables.target_columns import as_yes_or_no, refuse_dressed_numbers, refuse_texts, several_in_one
from kd_lightning.data.tables.unread_numbers import unread_numbers
from kd_lightning.errors import UserError

NO_TARGET = "none"
"""In place of a column: no row has a target."""
FEW_VALUES = 20
"""Whole numbers with at most so many different ones are class numbers, unless ``target_type`` says otherwise."""

COLUMNS = (
    "file", "bundled", "target", "drop", "target_type", "inputs", "categorical", "split", "group", "time",
)  # fmt: skip
"""The arguments of :class:`TableData` that say where a table is from and what its columns are: for a table of known columns to fix."""


class TableData(DistillationDataModule):
    """A table's rows, (N, F) float32.

    Args:
        file: ``.csv``, ``.tsv`` (``.gz``) or ``.parquet``; the first line of a text names the columns.
        bundled: instead of a file: ``bikeshare``, or scikit-learn's ``diabetes``, ``breast_cancer``, ``iris``, ``wine``, ``linnerud``.
        target: the column, or columns, to be predicted; None: what a bundled set says.
        inputs: columns that are inputs; None: all others but those of ``drop``, ``group`` and ``time``.
        drop: columns that are none.
        categorical: columns of numbers that stand for categories (texts always do).
        most_categories: a column of texts with more different ones is left out.
        target_type: "classes" or "values"; None: texts, and whole numbers of at most 20 kinds, are classes.
        split: "random"; "group": rows with the same value of the column ``group`` stay together; "time": the last ones by
            the column ``time`` are test, those before them validation.
        group, time: the column of such a split.
        test_size: rows, or their fraction if below 1; always the same ones.
        id: a column that names each row, by which stored answers of a teacher are found; None: its position does.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`. A row whose target is missing has no
            label: it is never validation or test.
    """

    scale = 1.0
    reading = None

    def __init__(
        self,
        file: str | None = None,
        bundled: str | None = None,
        target: str | Sequence[str] | None = None,
        inputs: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        categorical: Sequence[str] = (),
        most_categories: int = 100,
        target_type: Literal["classes", "values"] | None = None,
        split: Literal["random", "group", "time"] = "random",
        group: str | None = None,
        time: str | None = None,
        test_size: float = 0.2,
        id: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if (file is None) == (bundled is None):
            raise UserError("data: give data.file=PATH or data.bundled=NAME, one of them")
        if self.augment is not None:
            raise UserError("data.augment crops and flips images, a table has none: set it false")
        if test_size <= 0:
            raise UserError(f"data.test_size must be > 0, got {test_size}")
        for kind, column in (("group", group), ("time", time)):
            if split == kind and column is None:
                raise UserError(f"data.split={kind}: name the column, data.{kind}=NAME")
        self.table = self.read(file, bundled)
        self.split, self.test_size, self.id = split, test_size, id
        self._by = {"group": group, "time": time}.get(split)
        self.target_columns = _target_columns(target, self.table)
        self._require([*self.target_columns, *(inputs or ()), *drop, *categorical, *filter(None, (group, time, id))])
        aside = {*self.target_columns, *drop, *filter(None, (group, time, id))}
        self.columns = (
            list(inputs) if inputs is not None else [name for name in self.table.columns if name not in aside]
        )
        both = [name for name in self.columns if name in self.target_columns]
        if both:
            raise UserError(f"data.inputs: {both[0]!r} is the target")
        refuse_infinite(self.table, self.columns, self.target_columns)
        self._categorical, self._most_categories = list(categorical), most_categories
        chosen = {*(inputs or ()), *categorical}
        self._row_numbers = row_numbers(self.table, [name for name in self.columns if name not in chosen])
        self.labels, self.targets = self._read_targets(target_type)
        self.num_classes, self.class_names = self.labels.num_classes, self.labels.names
        self.encoder: TableEncoder | None = None
        self._rows: tuple[Tensor, Tensor, Tensor] | None = None

    def read(self, file: str | None, bundled: str | None) -> Table:
        """The table; a data set of its own says here where it is from."""
        return read_table(file) if file is not None else bundled_table(str(bundled))

    @property
    def in_features(self) -> int | None:
        """Numbers a row."""
        self.setup("fit")
        return len(self._encoder.feature_names)

    @property
    def _encoder(self) -> TableEncoder:
        assert self.encoder is not None  # made with the splits
        return self.encoder

    def build_splits(self) -> tuple[ArrayData, ArrayData, str]:
        """Training and validation rows, and the digest of content and choice."""
        rows, val, test = self._split()
        self.encoder, notes = TableEncoder.fitted(
            self.table.rows(rows.numpy()), self.columns, self._categorical, self._most_categories
        )
        self.reading = {"table": self.encoder.as_plain(), "target": list(self.target_columns)}
        target = f"target {', '.join(self.target_columns)}: {self.labels.kind}" if self.target_columns else "no target"
        if combined := several_in_one(self.labels.names or ()):
            target += f", {combined}"
        self.notes = [target, self.encoder.described(), *notes]
        if names := ",".join(self._row_numbers):
            told = f"{names.replace(',', ', ')}: whole numbers, another in each row, like an identifier: data.drop=[{names}] leaves it out"
            self.notes.append(told)
        parts = {"train": rows.numpy(), "validation": val.numpy(), "test": test.numpy()}
        for told in [
            *leaks(self.table, self.columns, self.target_columns, self.labels.kind == "classes", parts),
            *self._odd(),
        ]:
            tell_once(f"WARNING: data: {told}", logging.WARNING)
            self.notes.append(told)
        train = keep_first(self._in_order(rows), self.train_size)
        targets = hide_labels(self.targets[train], self.labelled)
        inputs = [self._encoder.encode(self.table.rows(part.numpy())) for part in (train, val)]
        digest = hashlib.blake2b(repr((self._encoder.feature_names, self.labelled)).encode(), digest_size=16)
        for part in (*inputs, targets, self.targets[val], train, val):
            digest.update(part.contiguous().numpy().tobytes())
        return (
            self.array(inputs[0], targets, f"{self.table.name} train"),
            self.array(inputs[1], self.targets[val], f"{self.table.name} validation"),
            digest.hexdigest(),
        )

    def _odd(self) -> list[str]:
        """What is worth a warning of single columns: numbers that are read as texts, a target's code for missing values."""
        train = self.table.rows(self._split()[0].numpy()).columns
        texts = [name for name in self.columns if name not in self._categorical]
        unread = [unread_numbers(name, train[name], self._most_categories) for name in texts]
        codes = [
            sentinel(name, self.table.columns[name]) for name in self.target_columns if self.labels.kind == "values"
        ]
        return [told for told in (*unread, *codes) if told is not None]

    def build_test(self) -> ArrayData:
        """The test rows."""
        self.setup("fit")
        rows = self._split()[2]
        return self.array(
            self._encoder.encode(self.table.rows(rows.numpy())), self.targets[rows], f"{self.table.name} test"
        )

    def places(self, split: str) -> Places:
        """Rows of the file."""
        self.setup("fit")
        rows, val, test = self._split()
        chosen = {"train": keep_first(self._in_order(rows), self.train_size), "val": val, "test": test}[split]
        return Places("train", chosen, len(self.targets), self._ids(chosen))

    def train_groups(self) -> Tensor | None:
        if self.split != "group" or self._by is None:
            return None
        return torch.from_numpy(self._split_numbers(self._by))[self.places("train").rows]

    def _split_numbers(self, by: str) -> np.ndarray:
        return numbers_of(self.table.columns[by], by, self.split == "time")

    def _ids(self, rows: Tensor) -> list[str] | None:
        if self.id is None:
            return None
        return [str(value) for value in as_categories(self.table.columns[self.id])[rows.numpy()]]

    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._rows is None:
            values = self.targets
            known = torch.ones(len(values), dtype=torch.bool)  # rows without a target are validation and test nowhere,
            if self.labels.kind != "none":  # but where there is none at all
                known = (
                    ~values.reshape(len(values), -1).isnan().any(1)
                    if values.is_floating_point()
                    else values != UNLABELLED
                )
            by = None if self._by is None else self._split_numbers(self._by)
            classes = values if self.labels.kind == "classes" else torch.zeros(len(values))
            self._rows = split_rows(
                by, self.split == "time", classes, known, self.test_size, self.val_size, self.split_seed
            )
            if not len(self._rows[0]):
                raise UserError("data: no rows are left to train on: lower data.test_size or data.val_size")
        return self._rows

    def _in_order(self, rows: Tensor) -> Tensor:
        """Training rows in the order of which subsets are beginnings, those with a target first."""
        targets = self.targets[rows]
        order = rows[stratified_order(targets if self.labels.kind == "classes" else targets.float(), self.split_seed)]
        values = self.targets[order]
        known = ~values.reshape(len(values), -1).isnan().any(1) if values.is_floating_point() else values != UNLABELLED
        return torch.cat([order[known], order[~known]])

    def _read_targets(self, target_type: str | None) -> tuple[Labels, Tensor]:
        if not self.target_columns:
            return Labels("none", key="data.target"), torch.full((len(self.table),), UNLABELLED)
        key, columns = "data.target", [self.table.columns[name] for name in self.target_columns]
        if len(columns) > 1:
            columns = [as_yes_or_no(column) for column in columns]
            if target_type == "classes":
                raise UserError(f"{key}: several columns are several values, data.target_type=classes takes one")
            named = dict(zip(self.target_columns, columns, strict=True))
            refuse_texts(named, key, " (several columns are numbers each, or yes and no)")
        texts = any(column.dtype == object for column in columns)
        if texts and target_type is None:
            refuse_dressed_numbers(self.target_columns[0], columns[0], FEW_VALUES)
        if target_type == "values" or (target_type is None and not texts and _are_values(columns)):
            if texts:
                refuse_texts({self.target_columns[0]: columns[0]}, "data.target_type=values", "")
            stacked = np.stack(columns, axis=1) if len(columns) > 1 else columns[0]
            return Labels("values", len(columns), key=key), torch.from_numpy(stacked.astype(np.float32))
        names = as_categories(columns[0])
        present = in_order({str(name) for name in names.tolist() if name is not None})
        labels = read_labels(names.tolist(), key, class_names=present)
        return labels, labels.encode(names.tolist(), len(names))

    def _require(self, names: Sequence[str]) -> None:
        absent = [name for name in names if name not in self.table.columns]
        if absent:
            raise UserError(
                f"data: {self.table.name} has no column {absent[0]!r}; it has {', '.join(list(self.table.columns)[:40])}"
            )


def _target_columns(target: str | Sequence[str] | None, table: Table) -> list[str]:
    if target is None and not table.target:
        raise UserError(
            f"data.target: name the column to be predicted, one of {', '.join(list(table.columns)[:40])}; none: there is none"
        )
    if target == NO_TARGET and NO_TARGET not in table.columns:
        return []
    return [target] if isinstance(target, str) else list(target or table.target)


def _are_values(columns: Sequence[np.ndarray]) -> bool:
    if len(columns) > 1:
        return True
    known = columns[0][~np.isnan(columns[0])]
    return bool((known != np.round(known)).any()) or len(np.unique(known)) > FEW_VALUES
