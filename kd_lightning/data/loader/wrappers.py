"""What a data set says of itself, also through the wrappers around it: may threads share it, has it views?

Wrappers that are looked into: torch's ``Subset``, ``ConcatDataset`` and ``StackDataset``, and our own, which name what
they hold in ``wrapped``. A subclass of a torch wrapper is code of the user's own.
"""

from __future__ import annotations

import copy
import inspect
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, StackDataset, Subset, TensorDataset, default_collate

from kd_lightning.data.loader.memory import first

_PLAIN = (list, tuple, dict, range, Tensor, np.ndarray, TensorDataset)
Stopped = Callable[[], bool]


def inside(dataset: Any) -> list[Any] | None:
    """The data sets that a wrapper holds; None for what is no wrapper."""
    if type(dataset) is Subset:
        return [dataset.dataset]
    if type(dataset) in (ConcatDataset, StackDataset):
        held = dataset.datasets
        return list(held.values()) if isinstance(held, dict) else list(held)
    held = getattr(dataset, "wrapped", None)
    return list(held) if is_ours(dataset) and held is not None else None


def is_ours(dataset: Any) -> bool:
    """A data set of this package (a subclass of one is the user's)."""
    return type(dataset).__module__.startswith("kd_lightning.")


def draws_nothing(dataset: Any) -> bool:
    """Known to take no number from the process's generators: ours, and torch's own containers of tensors."""
    held = inside(dataset)
    if held is not None:
        return all(map(draws_nothing, held))
    return type(dataset) in _PLAIN or is_ours(dataset)


def thread_safe(dataset: Any) -> bool:
    """Whether several threads may read it at once: it says so (``thread_safe = True``, or ``per_thread()`` gives each
    thread a copy), or it is a plain container. Nothing else is assumed."""
    held = inside(dataset)
    if held is not None:
        return all(map(thread_safe, held))
    said = getattr(dataset, "thread_safe", None)
    if isinstance(said, bool):
        return said
    return type(dataset) in _PLAIN or callable(getattr(dataset, "per_thread", None))


def thread_copy(dataset: Any) -> Any:
    """The data set for one pool thread: ``dataset.per_thread()`` where there is such a method, also inside wrappers."""
    if callable(getattr(dataset, "per_thread", None)):
        return dataset.per_thread()
    held = inside(dataset)
    if held is None:
        return dataset
    copies = [thread_copy(one) for one in held]
    if all(mine is theirs for mine, theirs in zip(copies, held, strict=True)):
        return dataset
    wrapper = copy.copy(dataset)
    if hasattr(wrapper, "datasets"):
        names = list(wrapper.datasets) if isinstance(wrapper.datasets, dict) else None
        wrapper.datasets = type(wrapper.datasets)(copies if names is None else zip(names, copies, strict=True))
    else:
        wrapper.dataset = copies[0]  # ours may name a function of the user's behind it
    return wrapper


def gathers(dataset: Any) -> bool:
    """Has our ``gather(indices, view)`` (a tensor's and other objects' methods of that name are something else)."""
    return _takes(dataset, "gather", 2)


def fills(dataset: Any) -> bool:
    """Has our ``allocate``, ``fill`` and ``finish``."""
    return _takes(dataset, "allocate", 1) and _takes(dataset, "fill", 5) and _takes(dataset, "finish", 3)


def has_views(dataset: Any) -> bool:
    """Whether a view of its samples can be asked for."""
    return gathers(dataset) or fills(dataset)


def _takes(dataset: Any, name: str, count: int) -> bool:
    return _method_takes(type(dataset), name, count)


@lru_cache(maxsize=256)
def _method_takes(kind: type, name: str, count: int) -> bool:
    method = getattr(kind, name, None)
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(None, *range(count))
    except (TypeError, ValueError):  # another signature; none (written in C)
        return False
    return True


def one_sample(dataset: Any, key: Any, view: int, stop: Stopped = lambda: False) -> Any:
    """One sample, in a view where the data set has views."""
    if gathers(dataset):
        return tuple(first(field) for field in dataset.gather(torch.tensor([key], device="cpu"), view))
    if fills(dataset):
        index = torch.tensor([key], device="cpu")
        buffers = dataset.allocate(1)
        dataset.fill(buffers, 0, index, view, stop)
        return tuple(first(field) for field in dataset.finish(buffers, index, view))
    return dataset[key]


def with_views(dataset: Any) -> Any:
    """A Subset or ConcatDataset of data sets that have views, as one that passes the view on; else the data set."""
    if type(dataset) is Subset:
        inner = with_views(dataset.dataset)
        if gathers(inner):
            return GatheredPart(inner, dataset.indices)
        return Part(inner, dataset.indices) if fills(inner) else dataset
    if type(dataset) is ConcatDataset:
        parts = [with_views(part) for part in dataset.datasets]
        return Joined(parts) if any(map(has_views, parts)) else dataset
    return dataset


class Part(Dataset):
    """Some samples of a data set that has ``fill``."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, torch.as_tensor([int(i) for i in indices], device="cpu")

    @property
    def wrapped(self) -> list[Any]:
        """What it holds."""
        return [self.dataset]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return one_sample(self.dataset, int(self.indices[index]), 0)

    def allocate(self, n: int) -> Any:
        return self.dataset.allocate(n)

    def fill(self, buffers: Any, start: int, indices: Tensor, view: int, stop: Stopped) -> None:
        self.dataset.fill(buffers, start, self.indices[indices], view, stop)

    def finish(self, buffers: Any, indices: Tensor, view: int) -> Any:
        return self.dataset.finish(buffers, self.indices[indices], view)


class GatheredPart(Part):
    """Some samples of a data set that has ``gather``."""

    def gather(self, indices: Tensor, view: int) -> Any:
        return self.dataset.gather(self.indices[indices], view)


class Joined(Dataset):
    """Data sets behind each other, read sample by sample, each in the view asked for where it has views."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = list(datasets)
        ends = np.cumsum([len(part) for part in self.datasets])
        self.ends: list[int] = ends.tolist()

    @property
    def wrapped(self) -> list[Any]:
        """What it holds."""
        return self.datasets

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Any:
        return self.sample(index, 0, lambda: False)

    def sample(self, index: int, view: int, stop: Stopped) -> Any:
        """One sample in one view."""
        part = bisect_right(self.ends, index)
        return one_sample(self.datasets[part], index - (self.ends[part - 1] if part else 0), view, stop)

    def allocate(self, n: int) -> list:
        return [None] * n

    def fill(self, buffers: list, start: int, indices: Tensor, view: int, stop: Stopped) -> None:
        for place, index in enumerate(indices.tolist(), start):
            if stop():
                return
            buffers[place] = self.sample(index, view, lambda: False)

    def finish(self, buffers: list, indices: Tensor, view: int) -> Any:
        return default_collate(buffers)
