"""How samples are read: what a data module's data sets offer to loaders, teacher caches and fingerprints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

Seeded = Callable[[int, int, Callable[[], None]], None]
_WHICH = 20  # bits of a view's number below those that say which of a sample's views in one batch it is


@runtime_checkable
class Samples(Protocol):
    """Samples of which any view can be read again.

    A loader reads it faster than one sample at a time where it also has ``gather``, or ``allocate``, ``fill`` and
    ``finish`` (:class:`~kd_lightning.data.loader.threaded_loader.ThreadedLoader` says what these do).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def read(self, indices: Tensor, view: int) -> tuple[Any, Any]:
        """``(inputs, target)`` of the samples at ``indices``, int64 of shape (N,), as a loader hands them out."""
        ...

    @property
    def targets(self) -> Tensor | None:
        """Every sample's target, in order; None where there are none, or they are only known once read."""
        ...


def read_filled(dataset: Any, indices: Tensor, view: int) -> tuple[Any, Any]:
    """``read`` of a data set with ``allocate``, ``fill`` and ``finish``."""
    buffers = dataset.allocate(len(indices))
    dataset.fill(buffers, 0, indices, view, lambda: False)
    inputs, target = dataset.finish(buffers, indices, view)
    return inputs, target


def view_number(view: int, which: int) -> int:
    """The number of a further view of the samples of a batch: ``which`` 0 is the batch's own ``view``, 1, 2, … others.

    Views are named by one number everywhere (draws, stored outputs, memory of evaluations), so these numbers lie where
    no epoch comes to.
    """
    return view + (which << _WHICH)


class SeveralViews(Dataset):
    """Each sample together with ``extra`` further views of it: batches are ``(inputs, target, further inputs)``.

    Args:
        dataset: with ``gather``, or ``allocate``, ``fill`` and ``finish``.
        extra: how many further views, >= 1.
        seeded: called with a view's number, a sample's index and what reads it: gives a data set that draws for itself
            random numbers of that view (the loader's are those of the batch's own view).
    """

    def __init__(self, dataset: Any, extra: int, seeded: Seeded | None = None) -> None:
        self.dataset, self.extra, self.seeded = dataset, extra, seeded

    @property
    def wrapped(self) -> list[Any]:
        """What it holds."""
        return [self.dataset]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def describe(self, index: int) -> str:
        """How an error message calls a sample."""
        return str(self.dataset.describe(index))

    def number(self, view: int, which: int) -> int:
        """The number of a view of the batch of ``view``: see :func:`view_number`."""
        return view_number(view, which)

    def numbers(self, view: int) -> list[int]:
        """The numbers of all views, the batch's own first."""
        return [self.number(view, which) for which in range(1 + self.extra)]

    def allocate(self, n: int) -> list[Any]:
        """Places for ``n`` samples in each view."""
        return [self.dataset.allocate(n) for _ in range(1 + self.extra)]

    def fill(self, buffers: Sequence[Any], start: int, indices: Tensor, view: int, stop: Callable[[], bool]) -> None:
        """Read every view of some samples."""
        for which, (places, number) in enumerate(zip(buffers, self.numbers(view), strict=True)):
            if self.seeded is None or (which == 0 and number == view):
                self.dataset.fill(places, start, indices, number, stop)
                continue
            for place, index in enumerate(indices, start):
                self.seeded(number, int(index), partial(self.dataset.fill, places, place, index[None], number, stop))

    def finish(self, buffers: Sequence[Any], indices: Tensor, view: int) -> tuple[Any, Any, tuple[Any, ...]]:
        """The batch, and its further inputs."""
        numbers = self.numbers(view)
        made = [self.dataset.finish(places, indices, k) for places, k in zip(buffers, numbers, strict=True)]
        return (*made[0], tuple(inputs for inputs, _ in made[1:]))


class SeveralGatheredViews(SeveralViews):
    """The same for a data set with ``gather``."""

    def gather(self, indices: Tensor, view: int) -> tuple[Any, Any, tuple[Any, ...]]:
        """One batch and its further inputs."""
        made = [self.dataset.gather(indices, number) for number in self.numbers(view)]
        return (*made[0], tuple(inputs for inputs, _ in made[1:]))


def labelled(targets: Tensor | None, unlabelled: int) -> Tensor:
    """Which samples have a label, bool of shape (N,): a class number, or a value that is not nan."""
    if targets is None:
        return torch.zeros(0, dtype=torch.bool)
    if targets.is_floating_point():
        return ~targets.reshape(len(targets), -1).isnan().all(1)
    return (targets.reshape(len(targets), -1) != unlabelled).any(1)


def by_themselves(dataset: Any) -> Any:
    """The data set without its samples being mixed with one another: what an input shows is what its target says."""
    alone = getattr(dataset, "unmixed", None)
    return alone() if callable(alone) else dataset


def first_sample(batch: Any) -> Any:
    """The first sample of a structure of tensors and lists of texts."""
    if isinstance(batch, Mapping):
        return {key: first_sample(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(first_sample(value) for value in batch)
    return batch[0] if isinstance(batch, (Tensor, list)) else batch
