"""A user's data set, or some of its samples, in the form that loaders and teacher caches read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.data.augment import CropFlip, moved_along
from kd_lightning.data.inputs import Inputs
from kd_lightning.data.items import ItemForm, UnequalShapes
from kd_lightning.data.labels import Labels
from kd_lightning.data.loader.choosing import read_now
from kd_lightning.data.loader.errors import describe, said
from kd_lightning.data.loader.foreign import ForeignCode
from kd_lightning.data.loader.wrappers import fills, gathers, with_views
from kd_lightning.data.samples import first_sample
from kd_lightning.data.split import masked
from kd_lightning.errors import UserError


class SampleData(Dataset):
    """The samples ``rows`` of a data set, with labels hidden and images augmented.

    Args:
        dataset: any map-style data set; faster where it has ``allocate``, ``fill`` and ``finish``, see
            :class:`~kd_lightning.data.loader.threaded_loader.ThreadedLoader`.
        rows: positions in it, int64 of shape (N,).
        form: how its items are taken apart.
        inputs: how inputs are cast.
        labels: what its targets mean.
        targets: of these samples, as far as they are known, hidden ones hidden.
        hidden: bool of shape (N,), samples whose label is hidden; None: none.
        augment: crop and flip of image tensors (C, H, W), and of targets of their size; None: none.
        seed: of the augmentation, and of the random numbers that the data set draws.
        name: how error messages call the data.
    """

    def __init__(
        self,
        dataset: Any,
        rows: Tensor,
        form: ItemForm,
        inputs: Inputs,
        labels: Labels,
        *,
        targets: Tensor | None = None,
        hidden: Tensor | None = None,
        augment: CropFlip | None = None,
        seed: int = 0,
        name: str = "the data",
    ) -> None:
        self.dataset, self.rows, self.form, self.inputs, self.labels = with_views(dataset), rows, form, inputs, labels
        self.targets, self.hidden, self.augment, self.seed, self.name = targets, hidden, augment, seed, name
        self.fills = fills(self.dataset)

    @property
    def wrapped(self) -> list[Any]:
        """The user's code that it calls: it is as safe in threads as that."""
        return [self.dataset] if self.form.collate_fn is None else [self.dataset, self.form.collate_fn]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """View 0 of one sample (what a plain DataLoader sees)."""
        return first_sample(self.read(torch.tensor([range(len(self))[index]]), 0))

    def read(self, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Some samples in one view, read in this thread."""
        inputs, target = read_now(self, indices, view, self.seed)
        return inputs, target

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

    def fill_views(
        self, buffers: Sequence[Any], start: int, indices: Tensor, views: Sequence[int], stop: Callable[[], bool]
    ) -> None:
        """Read samples once for several views, into memory of each; of a data set that has ``fill``, for each view."""
        self.fill(buffers[0], start, indices, views[0], stop)
        for memory, view in zip(buffers[1:], views[1:], strict=True):
            if self.fills:
                self.fill(memory, start, indices, view, stop)
            else:
                memory[start : start + len(indices)] = buffers[0][start : start + len(indices)]

    def finish(self, buffers: Any, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Collate, cast, augment, and hide labels."""
        if self.fills:
            return self.change(*self.dataset.finish(buffers, self.rows[indices], view), indices, view)
        try:
            inputs, target = self.form.batch(buffers)
        except UnequalShapes as error:
            raise UserError(f"{self.describe(int(indices[error.position]))} {error}") from error
        return self.change(inputs, target, indices, view)

    def change(self, inputs: Any, target: Any, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Cast and augment a batch, and hide labels."""
        inputs = self.inputs.cast(inputs)
        target = self.labels.encode(target, len(indices), self.rows[indices])
        if self.augment is not None:
            places = torch.arange(len(indices))
            size = inputs.shape[-2:]
            target = moved_along(self.augment, target, size, places, self.seed, view, indices)
            inputs = self.augment.gather(self.augment.pad(inputs), places, self.seed, view, indices).contiguous()
        if self.hidden is not None:
            target = masked(target, self.hidden[indices])
        return inputs, target


class GatheredSamples(SampleData):
    """The same for a data set with ``gather(indices, view)``: whole batches, no Python for each sample."""

    def gather(self, indices: Tensor, view: int) -> tuple[Any, Any]:
        """One batch of a view."""
        inputs, target = self.dataset.gather(self.rows[indices], view)
        return self.change(inputs, target, indices, view)


def samples_of(dataset: Any, *arguments: Any, **settings: Any) -> SampleData:
    """:class:`SampleData`, in whole batches where the data set gathers them."""
    return (GatheredSamples if gathers(with_views(dataset)) else SampleData)(dataset, *arguments, **settings)


class Items:
    """Reads single items of a user's data set, under random numbers of their own; errors name the item.

    Args:
        dataset: a map-style data set.
        key: its config key.

    Attributes:
        drew: some item drew from the generators of torch, numpy or Python.
    """

    def __init__(self, dataset: Any, key: str) -> None:
        kind = type(dataset).__name__
        if not (callable(getattr(dataset, "__len__", None)) and callable(getattr(dataset, "__getitem__", None))):
            raise UserError(
                f"{key} must be a data set with len() and items (a torch Dataset), got {kind}: iterable data sets cannot "
                "be split or cached"
            )
        self.dataset, self.key, self.kind, self.rows = dataset, key, kind, len(dataset)
        self.drew = False
        if not self.rows:
            raise UserError(f"{key}: {kind} has no samples")

    def __call__(self, row: int) -> Any:
        """The item at ``row``."""
        foreign = ForeignCode(self.dataset, 0, 0)
        try:
            with foreign.turn() as turn:
                item, drew = turn.whole(row, lambda: self.dataset[row])
        except Exception as error:  # whatever the user's code does
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.key}: {describe(self.dataset, row)} cannot be read: {said(error)}") from error
        self.drew = self.drew or drew
        return item
