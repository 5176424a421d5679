"""A table of texts and labels; models take token numbers and a mask by name, as transformers' do."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.places import Places
from kd_lightning.data.texts.hashing import HashingTokenizer
from kd_lightning.data.texts.reading import as_labels, read_columns
from kd_lightning.data.texts.rows import PaddedBatch, TextRows, Tokenizer
from kd_lightning.errors import UserError

Columns = Mapping[str, Sequence[str]]


class TextData(DatasetData):
    """Batches ``{"input_ids": (N, L), "attention_mask": (N, L), "text": N texts}``, each as long as its longest text.

    Args:
        file: ``.csv``, ``.tsv`` (also ``.gz``) or ``.parquet`` with a row a text.
        val_file, test_file: the same for validation and test; None: split off.
        text: the column with the texts.
        target: the column with the labels; None: there is none. An empty cell is a missing label.
        id: a column that names each row, by which stored answers of a teacher are found; None: its position does.
        group: a column (an author, a document) whose rows stay together in what is split off; None: rows are by themselves.
        tokenizer: called as ``tokenizer(texts, truncation=True, max_length=…)``; None: words by their hash, 4,096 numbers.
        max_length: the most tokens of a text.
        settings: those of :class:`~kd_lightning.data.dataset.DatasetData` but data sets and the items' form.
    """

    GIVEN_TO_BASE = ("train", "val", "test", "eval", "inputs", "collate_fn", "input_type", "mean", "std")
    SPLIT_KEY = "data.{}_file"

    def __init__(
        self,
        file: str | None = None,
        val_file: str | None = None,
        test_file: str | None = None,
        text: str = "text",
        target: str | None = "label",
        id: str | None = None,
        group: str | None = None,
        tokenizer: Tokenizer | None = None,
        max_length: int = 128,
        test_size: float = 0.2,
        val_size: float = 0.1,
        split_seed: int = 0,
        **settings: Any,
    ) -> None:
        if max_length < 1:
            raise UserError(f"data.max_length must be >= 1, got {max_length}")
        self.tokenizer = HashingTokenizer() if tokenizer is None else tokenizer
        self._names = {"text": text, "target": target, "id": id, "group": group}
        self.max_length = max_length
        if group is not None and not (0 < test_size < 1 and 0 <= val_size < 1):
            raise UserError(
                "data.group: what is split off is said as fractions: data.test_size and data.val_size below 1"
            )
        given = {"train": file, "val": val_file, "test": test_file}
        columns = {split: self.columns(split, path) for split, path in given.items() if split == "train" or path}
        chosen = self._chosen_rows(columns, test_size, val_size, split_seed)
        sets = {split: self._rows(columns[origin], origin, rows) for split, (origin, rows) in chosen.items()}
        super().__init__(
            sets["train"],
            sets.get("val"),
            sets.get("test"),
            test_size=test_size,
            val_size=val_size,
            split_seed=split_seed,
            target="none" if target is None else "label",
            inputs=["input_ids", "attention_mask", "text"],
            collate_fn=PaddedBatch(sets["train"].padding),
            **settings,
        )
        self.reading = {"text": {"column": text, "id": id, "max_length": max_length}}
        cut = int((sets["train"].lengths == max_length).sum())
        if cut:
            self.notes.append(
                f"{cut / len(sets['train']):.0%} of the texts are cut at data.max_length={max_length} tokens"
            )

    def columns(self, split: str, path: str | None) -> Columns:
        """The columns of one of the files."""
        key = "data.file" if split == "train" else f"data.{split}_file"
        if path is None:
            raise UserError(f"{key}: needs a table (CSV, TSV, Parquet) with a row a text")
        found = read_columns(path, key)
        for name, column in self._names.items():
            if column is not None and column not in found:
                raise UserError(f"data.{name}={column}: {path} has no such column, it has {', '.join(found)}")
        return found

    def sizes(self) -> dict[str, int]:
        """The data's sizes, with ``vocab_size``: how many token numbers there are."""
        return {**super().sizes(), "vocab_size": len(self.tokenizer)}  # type: ignore[arg-type]  # tokenizers have a length

    def places(self, split: str) -> Places:
        """Where the samples of a split stand in the file that they come from."""
        self.setup("fit")
        samples: Any = {"train": self._train, "val": self._val}.get(split) or self.test_dataset()
        rows: TextRows = samples.dataset
        positions = rows.positions[samples.rows]
        ids = None if rows.ids is None else [rows.ids[row] for row in samples.rows.tolist()]
        return Places(rows.origin, positions, rows.total, ids)

    def train_groups(self) -> Tensor | None:
        """A number for each training text, equal for those of one group."""
        self.setup("fit")
        samples: Any = self._train
        groups = samples.dataset.groups
        if groups is None:
            return None
        numbers: dict[str, int] = {}
        return torch.tensor([numbers.setdefault(groups[row], len(numbers)) for row in samples.rows.tolist()])

    def _chosen_rows(
        self, columns: Mapping[str, Columns], test_size: float, val_size: float, seed: int
    ) -> dict[str, tuple[str, Tensor | None]]:
        """For each data set the file that it is of, and its rows; None: all, of which something may be split off."""
        made: dict[str, tuple[str, Tensor | None]] = {split: (split, None) for split in columns}
        if self._names["group"] is None:
            return made
        groups = columns["train"][self._names["group"]]
        left = torch.ones(len(groups), dtype=torch.bool)
        for split, size, salt in (("test", test_size, "test"), ("val", val_size, f"{seed}")):
            if split in columns or not size:  # protocol=literature has no validation
                continue
            taken = left & torch.tensor([_share(f"{salt} {group}") < size for group in groups])
            made[split] = ("train", taken.nonzero()[:, 0])
            left &= ~taken
        made["train"] = ("train", left.nonzero()[:, 0])
        for split, (_, rows) in made.items():
            if rows is not None and not len(rows):
                raise UserError(f"data.group={self._names['group']}: no group is left for {split}: there are too few")
        return made

    def _rows(self, columns: Columns, origin: str, rows: Tensor | None) -> TextRows:
        total = len(next(iter(columns.values())))
        chosen = range(total) if rows is None else rows.tolist()

        def cells(name: str) -> list[str] | None:
            column = self._names[name]
            return None if column is None else [columns[column][row] for row in chosen]

        labels = None if self._names["target"] is None else as_labels(columns[self._names["target"]])
        return TextRows(
            cells("text") or [],
            None if labels is None else [labels[row] for row in chosen],
            self.tokenizer,
            self.max_length,
            positions=torch.tensor(list(chosen)),
            total=total,
            ids=cells("id"),
            groups=cells("group"),
            origin=origin,
        )


def _share(text: str) -> float:
    """A number in [0, 1) for a text, the same on every machine."""
    return zlib.crc32(text.encode("utf-8")) / 2**32
