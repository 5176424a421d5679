"""A teacher whose answers somebody else has stored: what an API gave, another program's predictions.

The file has a row a sample, found by the sample's position in the data as they were given or by its identifier; what the
rows hold is said, and checked as far as it can be: missing samples, sums of probabilities, the order of the classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.config.targets import TargetProblem
from kd_lightning.data.places import Places
from kd_lightning.errors import UserError
from kd_lightning.joints import LABELS, LOGITS, PROBABILITIES, VALUES, Teacher
from kd_lightning.outputs import ModelOutput, looks_like_probabilities
from kd_lightning.teachers.answer_file import AnswerFile, by_class, read_answers
from kd_lightning.teachers.arrays import PROVIDES, as_output, require_probabilities
from kd_lightning.teachers.checkpoint import require_file
from kd_lightning.teachers.class_order import no_better_than_the_commonest, require_class_order
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.top_k import spread_out

log = logging.getLogger(__name__)

TOP_K = "top_k"
SPLITS = ("train", "val", "test")


class StoredTeacher:
    """Reads a teacher's answers from files.

    Args:
        file: answers for the training data, and for what is split off them for validation and test.
        val_file, test_file: for validation and test data that are given beside; None: there are none, and the teacher is
            not measured there.
        holds: what the rows are: probabilities, logits, labels (class numbers or names), values (of a regression), or the
            ``top_k`` likeliest classes with their probabilities.
        key: the column with the samples' identifiers; None: row i answers sample i of the data as they were given.
        columns: the columns with the answers, in the order of the classes or values; None: those that are called as the
            classes, or all columns of numbers.
    """

    labels_new_inputs = False

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        holds: Literal["probabilities", "logits", "labels", "values", "top_k"] = "probabilities",
        key: str | None = None,
        columns: Sequence[str | int] | None = None,
    ) -> None:
        self.files = {"train": file, "val": val_file, "test": test_file}
        self.holds, self.key = holds, key
        self.columns = None if columns is None else [str(name) for name in columns]

    @staticmethod
    def check(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """What can be wrong with the node beyond its signature.

        Raises:
            TargetProblem: its key is relative to the node.
        """
        if not node.get("file"):
            raise TargetProblem("file", "needs the file with the teacher's answers (CSV, Parquet, NPY, NPZ)")
        for key in ("file", "val_file", "test_file"):
            require_file(node, key)

    @property
    def top_k(self) -> bool:
        """Whether the smaller probabilities of each row are known by their sum only."""
        return self.holds == TOP_K

    @property
    def provides(self) -> frozenset[str]:
        return PROVIDES[PROBABILITIES if self.top_k else self.holds]

    def make(self, context: TeacherContext) -> Teacher:
        """Read the files and find every sample's row.

        Raises:
            UserError: a training sample has no row, or rows are not what they are said to be.
        """
        data: Any = context.datamodule
        known: dict[str, AnswerFile] = {}
        answers: dict[str, Tensor] = {}
        for split in SPLITS:
            places = data.places(split)
            path = self.files[places.origin]
            if path is None:
                continue
            if places.origin not in known:
                key = "file" if places.origin == "train" else f"{places.origin}_file"
                known[places.origin] = read_answers(path, f"{context.where}.{key}")
            rows = self._rows(known[places.origin], places, split, context.name)
            if rows is not None:
                answers[split] = self._answers(known[places.origin], rows, places, context)
        if getattr(data, "mixing", None) is not None:
            raise UserError(
                f"{context.where}: stored answers are for single samples, {data.mixing.keys} mixes them two by two: leave it out"
            )
        if data.views != 1:
            log.warning(
                "WARNING: teacher %s: its file has one answer for a sample, training shows other views of it (data.augment): "
                "the answers are those to the sample as it is", context.name,
            )  # fmt: skip
        teacher = StoredAnswers(answers, self.provides, context.name, {k: v for k, v in self.files.items() if v})
        context.check_output(ModelOutput(answers["train"][:2]), "file")
        if self.holds in (PROBABILITIES, LOGITS):
            self._require_order(answers["train"], known["train"], context)
        return teacher

    def _rows(self, file: AnswerFile, places: Places, split: str, name: str) -> np.ndarray | None:
        """The row of each sample; None where validation or test samples have none."""
        wanted = places.rows.numpy()
        if self.key is None:
            if places.total is None:
                raise UserError(
                    f"{file.where}: the data's samples are known by their names, the first is {(places.ids or ['?'])[0]!r}: name "
                    "the column that holds these: teacher.key=…"
                )
            if len(file) != places.total:
                raise UserError(
                    f"{file.where}: has {len(file):,} rows, the {_SAID[places.origin]} have {places.total:,} samples: row i "
                    "answers sample i of these; where rows are missing or in another order, name the column of identifiers: "
                    "teacher.key=…"
                )
            return wanted
        given = [_text(value) for value in file.column(self.key, "teacher.key")]
        numbers = {identifier: row for row, identifier in enumerate(given)}
        if len(numbers) < len(given):
            twice = next(identifier for row, identifier in enumerate(given) if numbers[identifier] != row)
            raise UserError(f"{file.where}: two rows have the {self.key} {twice!r}")
        ids = [str(i) for i in (places.ids if places.ids is not None else wanted.tolist())]
        missing = [identifier for identifier in ids if identifier not in numbers]
        if missing and split == "train":
            what = "" if places.ids is not None else " (the data name no samples: these are their positions)"
            raise UserError(
                f"{file.where}: {len(missing):,} of {len(ids):,} training samples have no row, the first: {self.key} "
                f"{missing[0]!r}{what}; the file begins with {given[0]!r}"
            )
        if missing:
            log.info(
                "teacher %s: its file lacks %s of %s %s samples: it is not measured there", name, f"{len(missing):,}",
                f"{len(ids):,}", split,
            )  # fmt: skip
            return None
        return np.array([numbers[identifier] for identifier in ids])

    def _answers(self, file: AnswerFile, rows: np.ndarray, places: Places, context: TeacherContext) -> Tensor:
        """Logits (N, C), or values (N, D) in the task's units."""
        names: Any = context.datamodule.class_names

        def called(k: int) -> str:
            return f"row {int(rows[k])}" + ("" if places.ids is None else f" ({places.ids[k]})")

        if self.holds == VALUES:
            columns = self.columns or [n for n, c in file.columns.items() if n != self.key and c.dtype.kind in "biuf"]
            values = file.numbers(columns, "teacher.columns")[rows]
            _require_finite(values, called, file.where)
            return context.encoded(torch.from_numpy(values).float())
        classes = context.classes()
        if self.top_k:
            return spread_out(file, rows, called, names, classes)
        if self.holds == LABELS:
            return as_output(_class_numbers(file, self.columns, self.key, names, classes)[rows], LABELS, classes).logits
        numbers = file.numbers(by_class(file, self.columns, names, classes), "teacher.columns")[rows]
        if self.holds == LOGITS:
            _require_finite(numbers, called, file.where)
            if looks_like_probabilities(torch.from_numpy(numbers)):
                log.warning(
                    "WARNING: teacher %s: %s: its rows look like probabilities (>= 0, each sums to 1), and they are taken for "
                    "logits: if so, set teacher.holds=probabilities", context.name, file.where,
                )  # fmt: skip
        else:
            numbers = require_probabilities(numbers, called, file.where)
        return as_output(numbers, self.holds).logits

    def _require_order(self, logits: Tensor, file: AnswerFile, context: TeacherContext) -> None:
        """The classes have to be in the data's order, as far as labels tell."""
        names: Any = context.datamodule.class_names
        columns = by_class(file, self.columns, names, context.classes())
        data: Any = context.datamodule
        targets = data.train_views_dataset.targets
        require_class_order(logits, targets, names, file.where, columns)
        if self.key is None and no_better_than_the_commonest(logits, targets):
            log.warning(
                "WARNING: teacher %s: %s agrees with the training labels no better than one class for all of them would: row i "
                "has to answer sample i of the data as they were given; in another order, name the column of identifiers: "
                "teacher.key=…", context.name, file.where,
            )  # fmt: skip


class StoredAnswers:
    """Answers by split and position.

    Args:
        answers: logits or values (N, ...) by split, in the split's order.
        provides: see :class:`kd_lightning.joints.Teacher`.
        name: for messages and tables.
        files: where they come from.
    """

    labels_new_inputs = False

    def __init__(
        self, answers: Mapping[str, Tensor], provides: frozenset[str], name: str, files: Mapping[str, str | None]
    ) -> None:
        self.name, self.provides = name, provides
        self._answers, self._files = dict(answers), dict(files)
        self._content = self._digest()

    @property
    def splits(self) -> frozenset[str]:
        """The splits whose samples it answers for."""
        return frozenset(self._answers)

    def __call__(self, batch: Batch) -> ModelOutput:
        if batch.split not in self._answers or batch.index is None:
            raise UserError(
                f"teacher {self.name}: its file answers for {' and '.join(self._answers)} samples by their positions, and was "
                f"asked about {batch.split or 'other'} ones"
            )
        rows = self._answers[batch.split].index_select(0, batch.index.cpu())
        return ModelOutput(rows.to(batch.index.device, non_blocking=True))

    def to(self, device: torch.device | str) -> StoredAnswers:
        """Answers stay in main memory and go to the device of the samples' positions."""
        return self

    def verify(self) -> None:
        """Raise if an answer was written to."""
        if self._digest() != self._content:
            raise RuntimeError(f"teacher {self.name!r}: its answers changed since they were read")

    def cache_parts(self) -> dict[str, Any]:
        return {"answers": self._content}

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "parameters": None,
            "bytes": None,
            "files": self._files,
            "fingerprint": self._content,
        }

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for split in sorted(self._answers):
            digest.update(split.encode() + self._answers[split].contiguous().numpy().tobytes())
        return digest.hexdigest()


_SAID = {"train": "training data as they were given", "val": "validation data", "test": "test data"}


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def _require_finite(values: np.ndarray, called: Any, where: str) -> None:
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise UserError(f"{where}: {called(int(bad.argmax()))} holds nan or inf, or has an empty cell")


def _class_numbers(
    file: AnswerFile, columns: Sequence[str] | None, key: str | None, names: Sequence[str] | None, classes: int
) -> np.ndarray:
    """The class number of each row's label."""
    others = [name for name in file.columns if name != key]
    if columns is None and len(others) != 1:
        raise UserError(
            f"{file.where}: which column has the labels? teacher.columns=[…], one of {', '.join(others[:8])}"
        )
    column = file.column((columns or others)[0], "teacher.columns")
    known = {str(number): number for number in range(classes)}
    known |= {str(name): number for number, name in enumerate(names or [])}
    for row, label in enumerate(column):
        if _text(label) not in known:
            listed = ", ".join(map(str, (names or list(known))[:8]))
            raise UserError(f"{file.where}: row {row} has the label {_text(label)!r}, the data's classes are {listed}")
    return np.array([known[_text(label)] for label in column])
