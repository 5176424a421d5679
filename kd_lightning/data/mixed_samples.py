"""Samples that are read one by one (files, a user's own data set), mixed with one another as those in memory are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.batch import Partner
from kd_lightning.data.loader.choosing import read_now
from kd_lightning.data.loader.wrappers import gathers
from kd_lightning.data.mixing import Mixing, mixed
from kd_lightning.data.samples import Seeded, first_sample
from kd_lightning.errors import UserError


class MixedSamples(Dataset):
    """Each sample of a data set, mixed with the same view of another one: two are read for each.

    Args:
        dataset: with ``gather``, or ``allocate``, ``fill`` and ``finish``; inputs are float pictures (C, H, W) of one size,
            targets class numbers.
        mixing: partner, weight and box of each sample in each view.
        seed: of the mixing.
        seeded: as of :class:`~kd_lightning.data.samples.SeveralViews`: gives a partner that draws for itself the random
            numbers that it has as a sample of its own.

    Raises:
        UserError: its samples are no such pictures.
    """

    def __init__(self, dataset: Any, mixing: Mixing, seed: int, seeded: Seeded | None = None) -> None:
        self.dataset, self.mixing, self.seed, self.seeded = dataset, mixing, seed, seeded
        inputs, target = dataset.read(torch.tensor([0]), 0)
        pictures = isinstance(inputs, Tensor) and inputs.dim() == 4 and inputs.is_floating_point()
        if not (pictures and isinstance(target, Tensor) and target.dim() == 1 and not target.is_floating_point()):
            raise UserError(
                f"{mixing.keys}: for float pictures (C, H, W) that have one class number each; these data have inputs "
                f"{_form(inputs)} and targets {_form(target)}: leave it out"
            )

    @property
    def wrapped(self) -> list[Any]:
        """What it holds."""
        return [self.dataset]

    @property
    def targets(self) -> Tensor | None:
        """Every sample's own target."""
        return self.dataset.targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """View 0 of one sample (what a plain DataLoader sees)."""
        return first_sample(self.read(torch.tensor([range(len(self))[index]]), 0))

    def read(self, indices: Tensor, view: int) -> tuple[Any, Any]:
        """Some samples in one view, read in this thread: the mixtures, and the samples' own targets."""
        inputs, target, *_ = read_now(self, indices, view, self.seed)
        return inputs, target

    def describe(self, index: int) -> str:
        """How an error message calls a sample."""
        return f"{self.dataset.describe(index)} or the sample that it is mixed with"

    def unmixed(self) -> Any:
        """The same samples, each by itself."""
        return self.dataset

    def allocate(self, n: int) -> tuple[Any, Any]:
        """Places for ``n`` samples and for their partners."""
        return self.dataset.allocate(n), self.dataset.allocate(n)

    def fill(self, buffers: Any, start: int, indices: Tensor, view: int, stop: Callable[[], bool]) -> None:
        """Read some samples and their partners."""
        own, others = buffers
        self.dataset.fill(own, start, indices, view, stop)
        partners = self._partners(indices, view)
        if self.seeded is None:
            self.dataset.fill(others, start, partners, view, stop)
            return
        for place, index in enumerate(partners, start):
            self.seeded(view, int(index), partial(self.dataset.fill, others, place, index[None], view, stop))

    def finish(self, buffers: Any, indices: Tensor, view: int) -> tuple[Tensor, Tensor, Partner]:
        """The batch: mixtures, the samples' own targets, the partners' targets and the samples' weights."""
        own, others = buffers
        partners = self._partners(indices, view)
        return self._mixed(
            self.dataset.finish(own, indices, view), self.dataset.finish(others, partners, view), indices, view
        )

    def _partners(self, indices: Tensor, view: int) -> Tensor:
        return self.mixing.plan(self.seed, view, indices, len(self), 1, 1).partner

    def _mixed(self, own: Any, other: Any, indices: Tensor, view: int) -> tuple[Tensor, Tensor, Partner]:
        (inputs, target), (others, theirs) = own, other
        plan = self.mixing.plan(self.seed, view, indices, len(self), *inputs.shape[-2:])
        return mixed(inputs, others, plan.mask), target, Partner(theirs, plan.weight)


class MixedGatheredSamples(MixedSamples):
    """The same for a data set with ``gather``."""

    def gather(self, indices: Tensor, view: int) -> tuple[Tensor, Tensor, Partner]:
        """One batch, as of :meth:`finish`."""
        inputs, target = self.dataset.gather(torch.cat([indices, self._partners(indices, view)]), view)
        n = len(indices)
        return self._mixed((inputs[:n], target[:n]), (inputs[n:], target[n:]), indices, view)


def mixed_samples(dataset: Any, mixing: Mixing, seed: int, seeded: Seeded | None = None) -> MixedSamples:
    """:class:`MixedSamples`, in whole batches where the data set gathers them and draws nothing itself."""
    kind = MixedGatheredSamples if seeded is None and gathers(dataset) else MixedSamples
    return kind(dataset, mixing, seed, seeded)


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape[1:])}"
