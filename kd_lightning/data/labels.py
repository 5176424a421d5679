"""What the targets of a user's data set mean: class numbers, values, or nothing; cast where there is one meaning.

==============================================  ==================================================================
targets                                         become
==============================================  ==================================================================
whole numbers of any type, true/false           class numbers, int64
(N, 1) of whole numbers                         class numbers (N,)
one-hot rows, of whole numbers or floats        class numbers (N,)
texts                                           numbers of the sorted texts, which are the classes' names
-1 and +1, both and nothing else                classes 0 and 1
floats with rows >= 0 that sum to 1             soft labels, as they are
other floats                                    values, float32; with ``target_type: classes`` class numbers
-1, -100; 255 far above all others; None, nan   class numbers: no label (``UNLABELLED``)
==============================================  ==================================================================

What cannot be meant (labels that count from 1, that are all the same or all different, numbers with wide gaps) is
refused in one line that says what to type.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.label_checks import (
    ALMOST_ALL,
    IGNORED,
    LISTED,
    SUSPICIOUS,
    check_count,
    ignored_numbers,
    nearly_equal,
    refuse,
    refuse_infinite,
)
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.errors import UserError

TARGET_TYPES = ("classes", "values")


@dataclass
class Labels:
    """How a data set's targets are read.

    Attributes:
        kind: "classes", "soft" (rows of probabilities), "several" (whole numbers, several a sample), "values", or "none".
        num_classes: C; for values how many a sample has; None where nobody knows.
        names: of the classes, or None.
        numbers: class number by label, where labels are something else.
        ignored: numbers that mean "no label", beside ``UNLABELLED``.
        form: "rows" for one-hot rows, "column" for (N, 1), else "".
        notes: what was found and done, a few words each.
        key: config key of the data, for messages.
    """

    kind: str
    num_classes: int | None = None
    names: list[str] | None = None
    numbers: dict[Any, int] | None = None
    ignored: tuple[int, ...] = ()
    form: str = ""
    notes: list[str] = field(default_factory=list)
    key: str = "data.train"

    def encode(self, raw: Any, count: int, rows: Tensor | None = None) -> Tensor:
        """Targets as data sets give them, of ``count`` samples, as the models' losses take them.

        Args:
            raw: targets of any form, see above.
            count: how many samples they are of.
            rows: where these stand in the data set, for messages; None: they are all of it.

        Raises:
            UserError: a label that the training data does not have, a value that is infinite.
        """
        if self.kind == "none" or raw is None:
            return torch.full((count,), UNLABELLED)
        if self.numbers is not None:
            return torch.tensor([self._number(label) for label in _listed(raw)])
        values = as_tensor(raw, self.key)
        if self.kind == "several":
            return values
        if self.kind != "classes":
            refuse_infinite(values, self.key, rows)
            return values.to(torch.float32)
        if self.form == "rows":
            return torch.where(values.sum(1) > 0, values.argmax(1), UNLABELLED)
        if self.form == "column":
            values = values.reshape(len(values))
        if values.is_floating_point():
            values = torch.where(values.isnan(), UNLABELLED, values)
        values = values.to(torch.int64)
        for number in self.ignored:
            values = torch.where(values == number, UNLABELLED, values)
        if self.num_classes is not None and values.numel() and int(values.max()) >= self.num_classes:
            raise UserError(
                f"{self.key}: a label is {int(values.max())}, the classes count from 0 to {self.num_classes - 1}"
            )
        if values.numel() and int(values.min()) < UNLABELLED:
            raise UserError(
                f"{self.key}: a label is {int(values.min())}: class numbers count from 0, -1 marks no label"
            )
        return values

    def of(self, key: str) -> Labels:
        """The same for another data set, whose labels have to be those of the training data."""
        return replace(self, key=key, notes=[])

    def _number(self, label: Any) -> int:
        if label is None or label == "" or label != label:
            return UNLABELLED
        assert self.numbers is not None
        if label not in self.numbers:
            if label in (UNLABELLED, *IGNORED):
                return UNLABELLED
            known = ", ".join(map(str, list(self.numbers)[:LISTED]))
            shown = label.item() if hasattr(label, "item") else label
            raise UserError(f"{self.key}: a sample has the label {shown!r}, the classes are {known}")
        return self.numbers[label]


def read_labels(
    raw: Any,
    key: str,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    target_type: str | None = None,
) -> Labels:
    """The meaning of all training targets.

    Args:
        raw: tensor of shape (N, ...), list with texts or None in it, or None where there are no targets.
        key: config key of the data, for messages.
        num_classes, class_names, classes, target_type: as the configuration gives them.

    Raises:
        UserError: what cannot be meant, in one line.
    """
    if raw is None or (isinstance(raw, list) and all(label is None for label in raw)):
        if num_classes is None and class_names is not None:
            num_classes = len(class_names)
        return Labels("none", num_classes, _texts(class_names), key=key)
    if classes is not None:
        return _given_classes(raw, key, classes, class_names)
    if isinstance(raw, list) and any(isinstance(label, str) for label in raw):
        return _texts_as_classes(raw, key, class_names)
    values = as_tensor(raw, key)
    if target_type == "values":
        return Labels("values", num_classes or _width(values), key=key, notes=_cast_note(values, torch.float32))
    whole, rows = _is_whole(values), values.dim() == 2 and values.shape[1] > 1
    if rows and whole and values.min() >= 0 and values.max() <= 1 and bool((values.sum(1) == 1).all()):
        check_count(values.shape[1], num_classes, key)
        note = "one-hot rows become class numbers"
        return Labels("classes", values.shape[1], _texts(class_names), form="rows", key=key, notes=[note])
    if values.is_floating_point():
        if rows and values.min() >= 0 and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
            check_count(values.shape[1], num_classes, key)
            note = "soft labels: rows that sum to 1"
            return Labels("soft", values.shape[1], _texts(class_names), key=key, notes=[note])
        wanted = target_type == "classes" or (num_classes is not None and num_classes > 1 and whole and _flat(values))
        if not wanted:
            return Labels("values", num_classes or _width(values), key=key)
        if not whole:
            raise UserError(f"{key}: data.target_type=classes, but a target is {_odd(values)}: class numbers are whole")
    if rows:  # several whole numbers a sample: several labels, which a task of the user's own knows
        return Labels("several", num_classes or values.shape[1], key=key)
    return _class_numbers(values, key, num_classes, class_names)


def _class_numbers(values: Tensor, key: str, num_classes: int | None, class_names: Sequence[str] | None) -> Labels:
    labels = Labels("classes", num_classes, _texts(class_names), key=key)
    if num_classes is None and class_names is not None:
        labels.num_classes = num_classes = len(class_names)
    labels.notes = _cast_note(values, torch.int64)
    if values.dim() == 2:
        labels.form, values = "column", values[:, 0]
        labels.notes.append("labels (N, 1) become (N,)")
    dense = values.dim() > 1
    known = values[~values.isnan()] if values.is_floating_point() else values
    distinct, counts = known.to(torch.int64).unique(return_counts=True)
    if distinct.tolist() == [-1, 1]:
        labels.numbers, labels.num_classes = {-1: 0, 1: 1}, 2
        labels.notes.append("labels -1 and 1 become classes 0 and 1")
        return labels
    frequency = dict(zip(distinct.tolist(), counts.tolist(), strict=True))
    if UNLABELLED in frequency:
        labels.notes.append(
            f"{frequency.pop(UNLABELLED):,} {'values' if dense else 'samples'} with label -1 are unlabelled"
        )
    labels.ignored = ignored_numbers(frequency, num_classes)
    for number in labels.ignored:
        what = "values" if dense else "samples"
        labels.notes.append(f"{frequency.pop(number):,} {what} with label {number} count as unlabelled")
    present = sorted(frequency)
    if not present:
        return labels
    refuse(present, sum(frequency.values()), key, num_classes, dense)
    labels.num_classes = present[-1] + 1 if num_classes is None else num_classes
    return labels


def _given_classes(raw: Any, key: str, classes: Sequence[Any], class_names: Sequence[str] | None) -> Labels:
    names = [str(name) for name in (class_names or classes)]
    if len(set(map(str, classes))) != len(classes) or len(names) != len(classes):
        raise UserError(f"data.classes must name each label once, and data.class_names each class; got {list(classes)}")
    labels = Labels("classes", len(classes), names, {label: number for number, label in enumerate(classes)}, key=key)
    known = labels.encode(raw, len(raw))
    if not bool((known != UNLABELLED).any()):
        raise UserError(f"{key}: no sample has one of the labels data.classes={list(classes)}")
    return labels


def _texts_as_classes(raw: list[Any], key: str, class_names: Sequence[str] | None) -> Labels:
    present = sorted({str(label) for label in raw if label is not None and label != ""})
    names = present if class_names is None else [str(name) for name in class_names]
    absent = [name for name in present if name not in names]
    if absent:
        raise UserError(f"{key}: a sample has the label {absent[0]!r}, which data.class_names does not have")
    if len(present) == 1:
        raise UserError(f"{key}: all samples have the label {present[0]!r}: there is nothing to learn")
    if told := nearly_equal(present):
        tell_once(f"WARNING: {key}: {told}", logging.WARNING)
    labelled = sum(label is not None and label != "" for label in raw)
    if len(present) > ALMOST_ALL * labelled and labelled >= SUSPICIOUS:
        raise UserError(
            f"{key}: {labelled} samples have {len(present)} different texts as labels: choose another column or element with "
            "data.target"
        )
    note = f"labels are texts, numbered in {'sorted' if class_names is None else 'the given'} order"
    return Labels("classes", len(names), names, {name: k for k, name in enumerate(names)}, key=key, notes=[note])


def as_tensor(raw: Any, key: str) -> Tensor:
    """Targets as a tensor; a UserError where they are nothing of the kind."""
    if isinstance(raw, Tensor):
        return raw
    try:
        if isinstance(raw, list):
            known = [label for label in raw if label is not None]
            missing = UNLABELLED if known and all(map(_is_whole_number, known)) else float("nan")
            raw = [missing if label is None else label for label in raw]
            if any(isinstance(label, Tensor) for label in raw):
                return torch.stack([torch.as_tensor(label) for label in raw])
            return torch.from_numpy(np.asarray(raw))
        return torch.as_tensor(raw)
    except (TypeError, ValueError, RuntimeError) as error:
        shown = raw[0] if isinstance(raw, (list, tuple)) and raw else raw
        raise UserError(
            f"{key}: a target is {type(shown).__name__}: expected a number, a text, or a tensor of the same shape for "
            "every sample; data.target chooses a field"
        ) from error


def _is_whole_number(label: Any) -> bool:
    if isinstance(label, Tensor):
        return label.dim() == 0 and not label.is_floating_point()
    return isinstance(label, (int, np.integer, np.bool_))


def _listed(raw: Any) -> list[Any]:
    values = raw.reshape(len(raw)).tolist() if isinstance(raw, (Tensor, np.ndarray)) else list(raw)
    return [int(value) if isinstance(value, float) and value == int(value) else value for value in _without_nan(values)]


def _without_nan(values: list[Any]) -> list[Any]:
    return [None if isinstance(value, float) and value != value else value for value in values]


def _is_whole(values: Tensor) -> bool:
    if not values.is_floating_point():
        return True
    known = values[~values.isnan()]
    return bool((known == known.round()).all()) and bool(torch.isfinite(known).all())


def _flat(values: Tensor) -> bool:
    return values.dim() == 1 or (values.dim() == 2 and values.shape[1] == 1)


def _odd(values: Tensor) -> float:
    return float(values[~values.isnan() & ((values != values.round()) | values.isinf())].flatten()[0])


def _width(values: Tensor) -> int:
    return values[0].numel()


def _cast_note(values: Tensor, wanted: torch.dtype) -> list[str]:
    if values.dtype == wanted or (wanted is torch.float32 and values.dtype is torch.float64):
        return []
    names = [str(kind).removeprefix("torch.") for kind in (values.dtype, wanted)]
    return [f"targets {names[0]} become {names[1]}"]


def _texts(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [str(name) for name in names]
