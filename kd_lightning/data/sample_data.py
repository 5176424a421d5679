"""A user's data set, or some of its samples, in the form that loaders and teacher caches read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.loader.errors import describe, said
from kd_lightning.data.loader.foreign import ForeignCode
from kd_lightning.data.loader.wrappers import fills, with_views
from kd_lightning.errors import UserError


class SampleData(Dataset):
    """The samples ``rows`` of a data set of ``(inputs, target)`` pairs, with labels hidden and images augmented.

    Args:
        dataset: any map-style data set; faster where it has ``allocate``, ``fill`` and ``finish``, see
            :class:`~kd_lightning.data.loader.threaded_loader.ThreadedLoader`.
        rows: positions in it, int64 of shape (N,).
        labelled: the first so many samples keep their class number, None: all.
        augment: crop and flip of image tensors (C, H, W), None: none.
        seed: of the augmentation.
        name: how error messages call the data.
    """

    def __init__(
        self,
        dataset: Any,
        rows: Tensor,
        labelled: int | None = None,
        augment: CropFlip | None = None,
        seed: int = 0,
        name: str = "the data",
    ) -> None:
        self.dataset, self.rows, self.labelled = with_views(dataset), rows, labelled
        self.augment, self.seed, self.name = augment, seed, name
        self.fills = fills(self.dataset)

    @property
    def wrapped(self) -> list[Any]:
        """What it holds: it is as safe in threads as that, and copied for a thread if that is."""
        return [self.dataset]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """View 0 of one sample (what a plain DataLoader sees)."""
        index = range(len(self))[index]
        buffers = self.allocate(1)
        self.fill(buffers, 0, torch.tensor([index]), 0, lambda: False)
        inputs, target = self.finish(buffers, torch.tensor([index]), 0)
        return inputs[0], target[0]

    def describe(self, index: int) -> str:
        """How an error message calls a sample: by its file, where the user's data set can tell one."""
        row = int(self.rows[index])
        told = describe(self.dataset, row)
        return told if told != f"sample {row}" else f"sample {index}, item {row} of {self.name}"

    def allocate(self, n: int) -> Any:
        """Places for ``n`` samples."""
        return self.dataset.allocate(n) if self.fills else [None] * n

    def fill(self, buffers: Any, start: int, indices: Tensor, view: int, stop: Callable[[], bool]) -> None:
        """Read samples into their places from ``start`` on."""
        rows = self.rows[indices]
        if self.fills:
            self.dataset.fill(buffers, start, rows, view, stop)
            return
        for place, row in enumerate(rows.tolist(), start):
            if stop():
                return
            buffers[place] = self.dataset[row]

    def finish(self, buffers: Any, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Collate, augment, and hide labels."""
        if self.fills:
            return self.change(*self.dataset.finish(buffers, self.rows[indices], view), indices, view)
        return self.change(*default_collate(buffers), indices, view)

    def change(self, inputs: Any, target: Any, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Augment a batch, and hide labels."""
        if self.augment is not None:
            places = torch.arange(len(indices))
            inputs = self.augment.gather(self.augment.pad(inputs), places, self.seed, view, draws_of=indices)
            inputs = inputs.contiguous()
        if self.labelled is not None:
            target = target.masked_fill(indices >= self.labelled, UNLABELLED)
        return inputs, target


class GatheredSamples(SampleData):
    """The same for a data set with ``gather(indices, view)``: whole batches, no Python for each sample."""

    def gather(self, indices: Tensor, view: int) -> tuple[Any, Any]:
        """One batch of a view."""
        return self.change(*self.dataset.gather(self.rows[indices], view), indices, view)


def check_pair(dataset: Any, key: str) -> tuple[Tensor, Tensor]:
    """The first sample of a data set as tensors; a UserError where it is not ``(inputs, target)``."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(
            f"{key} must be a data set with len() and items (a torch Dataset), got {type(dataset).__name__}: "
            "iterable data sets cannot be split or cached"
        )
    if len(dataset) == 0:
        raise UserError(f"{key}: {type(dataset).__name__} has no samples")
    sample = read_item(dataset, 0, key)
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise UserError(
            f"{key}: an item of {type(dataset).__name__} must be (inputs, target), got {type(sample).__name__}"
        )
    try:
        inputs, target = default_collate([tuple(sample)])
    except TypeError as error:
        raise UserError(
            f"{key}: an item of {type(dataset).__name__} must be (inputs, target) of tensors, arrays or numbers, got "
            f"({type(sample[0]).__name__}, {type(sample[1]).__name__})"
        ) from error
    if not isinstance(inputs, Tensor) or not isinstance(target, Tensor):
        raise UserError(f"{key}: inputs and target must be one tensor each, got {type(inputs).__name__}")
    return inputs[0], target[0]


def read_item(dataset: Any, row: int, key: str) -> Any:
    """One item; what goes wrong is told with the item's position and file."""
    return read_items(dataset, [row], key)[0]


def read_items(dataset: Any, rows: Sequence[int], key: str) -> list[Any]:
    """Some items, each with random numbers of its own where it draws any: the same ones whenever it is read so."""
    with ForeignCode(dataset, 0, 0).turn() as turn:
        return [turn.sample(row, partial(_read, dataset, row, key)) for row in rows]


def _read(dataset: Any, row: int, key: str) -> Any:
    try:
        return dataset[row]
    except Exception as error:  # whatever the user's code does
        if isinstance(error, UserError):
            raise
        raise UserError(f"{key}: {describe(dataset, row)} cannot be read: {said(error)}") from error


def read_targets(dataset: Any, key: str) -> Tensor:
    """All targets, shape (N,) or (N, ...).

    From the data set's ``targets``, ``labels`` or ``tensors`` if they agree with its first, middle and last item (a
    data set may transform what it keeps); otherwise every item is read once.
    """
    tensors = getattr(dataset, "tensors", None)
    pair = tensors[1] if isinstance(tensors, (tuple, list)) and len(tensors) == 2 else None
    for kept in (getattr(dataset, "targets", None), getattr(dataset, "labels", None), pair):
        if kept is not None and not callable(kept) and len(kept) == len(dataset):
            targets = torch.as_tensor(kept)
            probed = (0, len(dataset) // 2, len(dataset) - 1)
            if all(
                torch.equal(targets[i], torch.as_tensor(read_item(dataset, i, key)[1]).to(targets.dtype))
                for i in probed
            ):
                return targets
    return default_collate([item[1] for item in read_items(dataset, range(len(dataset)), key)])
