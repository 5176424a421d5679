"""Any data set of your own: ``torch.utils.data.Dataset`` objects named by ``_target_`` in the configuration.

What is missing is split off: test from the training data, always the same samples, and then validation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.content import items_digest, state_digest
from kd_lightning.data.first_look import FirstLook
from kd_lightning.data.held_out import SAME, require_alike
from kd_lightning.data.items import NO_TARGET_NOTE, ItemForm
from kd_lightning.data.label_checks import refuse_infinite
from kd_lightning.data.labels import Labels, as_tensor, read_labels
from kd_lightning.data.loader.foreign import ForeignCode, tell_once
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.places import Places
from kd_lightning.data.sample_data import Items, SampleData, samples_of
from kd_lightning.data.samples import Seeded
from kd_lightning.data.shared_samples import TrainingItems
from kd_lightning.data.split import count_of, hidden_labels, keep_first, masked, stratified_order
from kd_lightning.data.targets import read_targets
from kd_lightning.errors import UserError

log = logging.getLogger(__name__)

_TEST_SEED = 1013


class DatasetData(DistillationDataModule):
    """Data sets whose items are inputs and a target in any structure, see :mod:`kd_lightning.data.items`.

    Args:
        train: the training data set.
        val: validation; None: ``val_size`` is split off ``train``.
        test: test; None: ``test_size`` is split off ``train``, the same samples whatever the other settings.
        eval: the samples of ``train`` in the same order as evaluation shall see them (without random augmentation): what
            is split off is read from it. None: from ``train.for_evaluation()`` if there is such a method, else ``train``.
        test_size: number of samples, or their fraction if below 1.
        target: the field or position of an item that is its target, "none": there is none; None: one called target,
            label, labels or y, or the last element.
        inputs: the fields or positions that are the models' inputs; None: all others.
        target_type: "classes" or "values", where :mod:`kd_lightning.data.labels` cannot know.
        input_type: "float32" or "int64": cast inputs to it; None: see :class:`~kd_lightning.data.inputs.Inputs`.
        collate_fn: makes a batch of a list of items (for texts of different lengths); one batch at a time.
        num_classes: None: one more than the largest training target (for values: how many a sample has).
        classes: the labels in the order of their class numbers, where they are no numbers from 0.
        class_names: their names, or None.
        mean, std: per channel, by which your data set normalised its inputs (of pixels in [0, 1]), for a teacher that
            expects another normalisation; None: nobody knows.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`. ``augment`` crops and flips inputs
            of shape (C, H, W), reproducibly, and targets (H, W) with them, and mixes them. Where the data set draws random numbers
            itself, from the generators of torch, numpy or Python, these are seeded for each sample and view; ``views``
            None is then 0.
    """

    SPLIT_KEY = "data.{}"
    """How messages call the data set of a split."""
    scale = 1.0
    reading: Mapping[str, Any] | None = None  # whatever the data set does to its pictures

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        eval: Dataset | None = None,
        test_size: float = 0.2,
        target: str | int | None = None,
        inputs: Sequence[str | int] | str | int | None = None,
        target_type: Literal["classes", "values"] | None = None,
        input_type: Literal["float32", "int64"] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_classes: int | None = None,
        classes: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if test_size <= 0:
            raise UserError(f"data.test_size must be > 0, got {test_size}")
        if names := getattr(train, "table_columns", None):
            self.reading = {"columns": [*names]}
        self._state = state_digest(train)  # before anything is read: a data set may keep what it has read
        self._items = Items(train, "data.train")
        self.form = ItemForm(target, inputs, collate_fn)
        look = self._look = FirstLook(self._items, self.form, input_type)
        if self.augment is not None:
            look.require_pictures()
        self.sample_shape, self.draws, self.notes = look.shape, look.draws, [*look.notes]
        for note in self.notes:
            if note.startswith(NO_TARGET_NOTE):  # now: what fails for it is often told of a model
                log.warning("WARNING: data: %s", note)
        if look.shape is not None and len(look.shape) >= 2:
            self.in_channels = look.shape[0]
        if look.shape is not None and len(look.shape) == 3 and look.shape[1] == look.shape[2]:
            self.image_size = look.shape[2]
        if settings.get("views") is not None:
            self.views = settings["views"]  # the data set's own views may differ without an augmentation of ours
        elif self.draws:
            self.views = 0
        self.mean, self.std = _numbers(mean), _numbers(std)
        self._sets: dict[str, Any] = {"train": train, "val": val, "test": test, "eval": _for_evaluation(train, eval)}
        self.test_size, self._given_names = test_size, class_names
        self._given = {"num_classes": num_classes, "classes": classes, "target_type": target_type}
        self._labels: Labels | None = None
        self._targets: Tensor | None = None
        self._hidden: Tensor | None = None

    @property
    def in_features(self) -> int | None:
        """Values a sample; None where it is no single tensor."""
        return None if self.sample_shape is None else torch.Size(self.sample_shape).numel()

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """As given, or counted in the training targets."""
        return self.labels.num_classes

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """As given, or the labels where they are texts."""
        return self.labels.names

    @property
    def labels(self) -> Labels:
        """What the training targets mean; reads them."""
        if self._labels is None:
            raw, complete = read_targets(self._sets["train"], self.form, self._items, self._items.rows)
            self._labels = read_labels(raw, "data.train", class_names=self._given_names, **self._given)
            self.notes += self._labels.notes
            if complete and self._labels.kind != "none":
                self._targets = self._labels.encode(raw, self._items.rows)
        return self._labels

    def labelled_in(self, split: str) -> int:
        """How many samples of ``split``, "train", "val" or "test", have a label, as far as it is known without reading them."""
        if self.labels.kind == "none":
            return 0
        self.setup("fit")
        if split == "train" and self._hidden is not None:
            return int((~self._hidden).sum())
        return super().labelled_in(split)

    @property
    def seeded(self) -> Seeded | None:
        """As of the base class."""
        return self._seeded if self.draws else None

    def _seeded(self, view: int, index: int, read: Callable[[], None]) -> None:
        with ForeignCode(self._sets["train"], self.seed, view).turn() as turn:
            turn.sample(index, read)

    def build_splits(self) -> tuple[SampleData, SampleData, str]:
        """Training and validation samples, and the digest of data set, targets, choice, and items."""
        val, pool = self._sets["val"], self._order()[0]
        self._refuse_infinite_test_values()
        if val is None:
            order = self._shuffled(pool, self.split_seed)
            size = count_of(self.val_size, len(order), "data.val_size")
            val_data = self._samples("eval", order[:size], "the training data")
            chosen = torch.zeros(self._items.rows, dtype=torch.bool)
            chosen[order[:size]] = True
            whole = len(order) == len(pool)
            pool = order[size:] if whole else self._stratified(pool[~chosen[pool]])
        else:
            val_data = self._whole("val", "the validation data")
            self._require_alike("val")
            pool = self._stratified(pool)
        if self._sets["test"] is not None:
            self._require_alike("test")
        rows = keep_first(pool, self.train_size)
        known = None if self._targets is None else self._targets[rows]
        if self.labels.kind == "soft" and self.labelled is not None:
            raise UserError(
                "data.labelled hides class numbers and values, these targets are soft: set data.labelled=null"
            )
        self._hidden = hidden_labels(known, len(rows), self.labelled)
        train_data = self._samples("train", rows, "the training data", hidden=self._hidden, augment=self.augment)
        if self.draws and self._sets["eval"] is self._sets["train"] and (val is None or self._sets["test"] is None):
            self.notes.append(
                "the data set draws random numbers, also for what is split off for validation or test: data.eval gives "
                "the same samples without"
            )
        return train_data, val_data, self._digest(rows)

    def _refuse_infinite_test_values(self) -> None:
        """Now, where test is a set of plain tensors: it is read after the training."""
        test = self._sets["test"]
        if type(test) is TensorDataset and self.labels.kind == "values":
            refuse_infinite(as_tensor(self.form.split(test.tensors)[1], "data.test"), "data.test")

    def build_test(self) -> SampleData:
        """The test samples."""
        if self._sets["test"] is None:
            return self._samples("eval", self._order()[1], "the training data")
        return self._whole("test", "the test data")

    def _require_alike(self, split: str) -> None:
        note = require_alike(
            self.SPLIT_KEY.format(split), self._sets[split], self._sets["train"], self.form, self._look, self.labels
        )
        self.notes += filter(None, [note])

    def _tell_shared(self, read: TrainingItems, trained: int) -> None:
        """Warn of validation and test data sets whose samples are trained on."""
        for split in ("val", "test"):
            key = self.SPLIT_KEY.format(split)
            if self._sets[split] is None or f"{key}: {SAME}" in self.notes:
                continue
            if note := read.shared(key, self._sets[split], trained):
                tell_once(f"WARNING: {note}", logging.WARNING)
                self.notes.append(note)

    def places(self, split: str) -> Places:
        """Where the samples of a split stand in the data set that they come from."""
        self.setup("fit")
        samples: Any = {"train": self._train, "val": self._val}.get(split) or self.test_dataset()
        origin = split if split != "train" and self._sets[split] is not None else "train"
        return Places(origin, samples.rows, len(self._sets[origin]), self.ids_of(origin, samples.rows))

    def ids_of(self, origin: str, rows: Tensor) -> list[str] | None:
        """What the samples at ``rows`` of a data set are called: by its ``ids``, if it has them."""
        ids = getattr(self._sets[origin], "ids", None)
        return None if ids is None else [str(ids[row]) for row in rows.tolist()]

    def view_settings(self) -> Mapping[str, Any]:
        """Everything but the samples that a model's training input depends on."""
        varied = {"seed": self.seed, "views": self.views} if self.draws else {}
        made = {"dataset": type(self._sets["train"]).__qualname__, "items": self.form.settings(), **varied}
        return {**super().view_settings(), **made, "input_type": self._look.inputs.input_type}

    def _digest(self, rows: Tensor) -> str:
        digest = hashlib.blake2b(repr((self._items.rows, self.labelled, self.sample_shape)).encode(), digest_size=16)
        digest.update(self._state.encode())
        for part in (rows, self._targets):
            if part is not None:
                digest.update(part.contiguous().numpy().tobytes())
        if self._look.repeats:
            read = TrainingItems(self._items, self.form)
            digest.update(items_digest(rows, read).encode())
            self._tell_shared(read, len(rows))
        return digest.hexdigest()

    def _order(self) -> tuple[Tensor, Tensor]:
        """Rows of the training data set that are not test, and those that are."""
        rows = torch.arange(self._items.rows)
        if self._sets["test"] is not None:
            return rows, rows[:0]
        order = self._shuffled(rows, _TEST_SEED)
        cut = count_of(self.test_size, len(order), "data.test_size")
        if len(order) == len(rows):
            return order[cut:], order[:cut]
        chosen = torch.zeros(len(rows), dtype=torch.bool)
        chosen[order[:cut]] = True
        return rows[~chosen], order[:cut]

    def _shuffled(self, rows: Tensor, seed: int) -> Tensor:
        """Those of ``rows`` that can be tested, in stratified order: the labelled ones, if there are any."""
        classes = self._classes(rows)
        if not classes.is_floating_point() and classes.dim() == 1:
            known = classes != UNLABELLED
            if bool(known.any()):
                rows, classes = rows[known], classes[known]
        return rows[stratified_order(classes, seed)]

    def _stratified(self, rows: Tensor) -> Tensor:
        return rows[stratified_order(self._classes(rows), self.split_seed)]

    def _classes(self, rows: Tensor) -> Tensor:
        """Class numbers of some rows, or anything else as long, which is only shuffled."""
        kind = self.labels.kind
        return self._targets[rows] if self._targets is not None and kind == "classes" else torch.zeros(len(rows))

    def _samples(self, split: str, rows: Tensor, name: str, **changes: Any) -> SampleData:
        labels = self.labels
        targets = None if self._targets is None else self._targets[rows]
        if targets is not None and changes.get("hidden") is not None:
            targets = masked(targets, changes["hidden"])
        options = {"targets": targets, "seed": self.seed, "name": name, **changes}
        return samples_of(self._sets[split], rows, self.form, self._look.inputs, labels, **options)

    def _whole(self, split: str, name: str) -> SampleData:
        """All samples of a validation or test data set; its first one has to be like the training samples."""
        key, dataset = f"data.{split}", self._sets[split]
        items = Items(dataset, key)
        labels = self.labels.of(key)
        return samples_of(
            dataset, torch.arange(items.rows), self.form, self._look.inputs, labels, seed=self.seed, name=name
        )


def _for_evaluation(train: Any, given: Any) -> Any:
    """The training samples as evaluation shall see them."""
    made = given
    if given is None:
        method = getattr(train, "for_evaluation", None)
        made = method() if callable(method) else train
    if len(made) != len(train):
        raise UserError(
            f"data.eval: has {len(made)} samples, data.train {len(train)}: it gives the same samples in the same order"
        )
    return made


def _numbers(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
