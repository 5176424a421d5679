"""Any data set of your own: ``torch.utils.data.Dataset`` objects named by ``_target_`` in the configuration.

What is missing is split off: test from the training data, always the same samples, and then validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.data.loader.foreign import draws, tell_once
from kd_lightning.data.loader.wrappers import gathers, with_views
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.sample_data import GatheredSamples, SampleData, check_pair, read_item, read_targets
from kd_lightning.data.split import count_of, keep_first, stratified_order
from kd_lightning.errors import UserError

_TEST_SEED = 1013
_HASHED_SAMPLES = 64


class DatasetData(DistillationDataModule):
    """Data sets whose items are ``(inputs, target)``: inputs a tensor as the models take it, target a class number.

    Args:
        train: the training data set.
        val: validation; None: ``val_size`` is split off ``train``.
        test: test; None: ``test_size`` is split off ``train``, the same samples whatever the other settings.
        test_size: number of samples, or their fraction if below 1.
        num_classes: None: one more than the largest training target (for values: how many a sample has).
        class_names: their names, or None.
        mean, std: per channel, by which your data set normalised its inputs (of pixels in [0, 1]), for a teacher that
            expects another normalisation; None: it did not normalise.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`. ``augment`` crops and flips inputs
            of shape (C, H, W), reproducibly. A data set that draws random numbers itself gets those of (seed, view,
            sample) from torch's, numpy's and Python's own generators, and a new view each epoch (``views=0``).
    """

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        test_size: float = 0.2,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if test_size <= 0:
            raise UserError(f"data.test_size must be > 0, got {test_size}")
        inputs, _ = check_pair(train, "data.train")
        if settings.get("views") is not None:
            self.views = settings["views"]  # the data set's own views may differ without an augmentation of ours
        elif draws(train, 0):
            self.views = 0
            tell_once(f"data: {type(train).__name__} draws random numbers: a new view each epoch, seeded by data.seed")
        self.sample_shape = tuple(inputs.shape)
        if self.augment is not None and len(self.sample_shape) != 3:
            raise UserError(
                f"data.augment crops images (C, H, W), the samples have shape {self.sample_shape}: set it false"
            )
        channels = self.sample_shape[0] if self.sample_shape else 1
        self.mean, self.std = list(mean or [0.0] * channels), list(std or [1.0] * channels)
        self.in_channels = channels
        self.image_size = self.sample_shape[-1] if len(self.sample_shape) == 3 else 1
        self._sets: dict[str, Any] = {"train": train, "val": val, "test": test}
        self.test_size, self.class_names = test_size, list(class_names) if class_names is not None else None
        self._targets: Tensor | None = None
        self._given_classes = num_classes

    @property
    def in_features(self) -> int:
        """Values a sample."""
        return torch.Size(self.sample_shape).numel()

    @property
    def num_classes(self) -> int:
        """As given, or counted in the training targets."""
        if self._given_classes is not None:
            return self._given_classes
        targets = self._train_targets()
        if targets.is_floating_point():
            return targets[0].numel()
        return int(targets.max()) + 1

    def build_splits(self) -> tuple[SampleData, SampleData, str]:
        """Training and validation samples, and the digest of targets, choice, and some of the inputs."""
        train, val, targets = self._sets["train"], self._sets["val"], self._train_targets()
        self._check_classes(targets)
        pool = self._order()[0]
        if val is None:
            pool = pool[stratified_order(targets[pool], self.split_seed)]
            val_size = count_of(self.val_size, len(pool), "data.val_size")
            val_data = _samples(train, pool[:val_size], "the training data")
            pool = pool[val_size:]
        else:
            check_pair(val, "data.val")
            val_data = _samples(val, torch.arange(len(val)), "the validation data")
            pool = pool[stratified_order(targets[pool], self.split_seed)]
        rows = keep_first(pool, self.train_size)
        if self.labelled is not None and self.labelled > len(rows):
            raise UserError(f"data.labelled={self.labelled} is more than the {len(rows)} training samples: lower it")
        train_data = _samples(train, rows, "the training data", self.labelled, self.augment, self.seed)
        digest = hashlib.blake2b(repr((len(train), self.labelled, self.sample_shape)).encode(), digest_size=16)
        for part in (
            rows,
            targets,
            *(torch.as_tensor(read_item(train, i, "data.train")[0]) for i in rows[:_HASHED_SAMPLES].tolist()),
        ):
            digest.update(part.contiguous().numpy().tobytes())
        return train_data, val_data, digest.hexdigest()

    def build_test(self) -> SampleData:
        """The test samples."""
        test = self._sets["test"]
        if test is None:
            return _samples(self._sets["train"], self._order()[1], "the training data")
        check_pair(test, "data.test")
        return _samples(test, torch.arange(len(test)), "the test data")

    def view_settings(self) -> Mapping[str, Any]:
        """Everything but the samples that a model's training input depends on."""
        return {**super().view_settings(), "dataset": type(self._sets["train"]).__qualname__}

    def _order(self) -> tuple[Tensor, Tensor]:
        """Rows of the training data set that are not test, and those that are."""
        total = len(self._sets["train"])
        if self._sets["test"] is not None:
            return torch.arange(total), torch.arange(0)
        order = stratified_order(self._train_targets(), _TEST_SEED)
        cut = count_of(self.test_size, total, "data.test_size")
        return order[cut:], order[:cut]

    def _train_targets(self) -> Tensor:
        if self._targets is None:
            self._targets = read_targets(self._sets["train"], "data.train")
        return self._targets

    def _check_classes(self, targets: Tensor) -> None:
        if targets.is_floating_point() or self._given_classes is None:
            return
        largest = int(targets.max())
        if largest >= self._given_classes:
            raise UserError(f"data.num_classes={self._given_classes}, but a target is {largest}: classes count from 0")


def _samples(dataset: Any, rows: Tensor, name: str, *changes: Any) -> SampleData:
    kind = GatheredSamples if gathers(with_views(dataset)) else SampleData
    return kind(dataset, rows, *changes, name=name)
