"""The ways in which a data set can be read, from whole batches without Python per sample down to one item at a time.

``choose_reader`` (``choosing.py``) takes the best that the data set offers:

==================  =====================================================  ===========================================
the data set has    a task is                                              which is fastest for
==================  =====================================================  ===========================================
``gather``          several whole batches                                  data in memory
``fill``            a chunk of a batch, written into the batch's memory    files: decoding costs more than Python
``__getitems__``    one batch                                              what torch's own convention was made for
``__getitem__``     a chunk of a batch                                     anything
``__iter__``        one batch, read by one thread                          torch's IterableDataset
==================  =====================================================  ===========================================

Code that is not ours is called through a ``Turn``, see ``foreign.py``.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from kd_lightning.data.loader.foreign import ForeignCode, Turn
from kd_lightning.data.loader.memory import joined, size_of, split
from kd_lightning.data.loader.reader import Delivery, Reader
from kd_lightning.data.loader.tasks import Chunk, Slot, Stop, Workers
from kd_lightning.data.loader.wrappers import one_sample
from kd_lightning.errors import UserError

_GROUPED_SAMPLES = 1024  # above this, a vectorised call gains nothing by being larger
_GROUPED_BYTES = 8 << 20  # and below this it stays in the processor's cache


class GatherReader(Reader):
    """``dataset.gather(indices, view) -> (inputs, target)``: a vectorised call for several batches.

    How many batches are gathered together is decided when the size of the first one is known. They are slices of the
    memory that the call returned, which lives as long as the last of them.
    """

    def __init__(self, foreign: ForeignCode, delivery: Delivery, batch_size: int, num_threads: int) -> None:
        super().__init__(foreign, delivery, batch_size, num_threads)
        self.batch_size, self.window = batch_size, 4

    @staticmethod
    def threads(offered: int) -> int:
        """Gathering is bound by memory, and one thread gathers faster than most models train."""
        return max(1, min(4, offered // 2))

    def read_group(self, dataset: Any, slots: list[Slot]) -> None:
        together = dataset.gather(torch.cat([_positions(slot) for slot in slots]), self.view)
        sizes = [len(_positions(slot)) for slot in slots]
        for slot, fields in zip(slots, zip(*(split(field, sizes) for field in together), strict=True), strict=True):
            slot.buffers = list(fields)

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        slot = chunk.slot
        if slot.buffers is None:
            with self.foreign.turn() as turn:
                slot.buffers = self._gather(dataset, _positions(slot), turn)
                self.read_again(dataset, chunk.keys(), turn)
            self.group = min(_GROUPED_SAMPLES // self.batch_size, _GROUPED_BYTES // max(1, size_of(slot.buffers)))
            self.group = 1 if self.delivery.reread else max(1, self.group)
            self.window = 4 * self.group

    def _gather(self, dataset: Any, indices: Tensor, turn: Turn) -> Any:
        if not self.foreign.drew:
            together, drew = turn.whole(int(indices[0]), lambda: dataset.gather(indices, self.view))
            if not drew:
                return together
        singles = [turn.sample(int(i), partial(dataset.gather, i[None], self.view)) for i in indices]
        return [joined(list(field)) for field in zip(*singles, strict=True)]

    def result(self, dataset: Any, slot: Slot) -> Any:
        return list(slot.buffers)


class FillReader(Reader):
    """``allocate``, ``fill``, ``finish``: samples are written at their places of a batch allocated beforehand."""

    def __init__(self, foreign: ForeignCode, delivery: Delivery, batch_size: int, num_threads: int) -> None:
        super().__init__(foreign, delivery, batch_size, num_threads)
        # Two chunks a thread: fine enough that threads end a batch together, coarse enough to cost nothing.
        self.chunk = max(1, -(-batch_size // (2 * num_threads)))

    def prepare(self, dataset: Any, slot: Slot) -> None:
        slot.buffers = dataset.allocate(len(_positions(slot)))

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        slot, stop = chunk.slot, Stop(chunk, workers)
        indices = _positions(slot)[chunk.start : chunk.end]
        with self.foreign.turn() as turn:
            if self.foreign.calm:
                dataset.fill(slot.buffers, chunk.start, indices, self.view, stop)
            else:
                for place, index in enumerate(indices, chunk.start):
                    fill = partial(dataset.fill, slot.buffers, place, index[None], self.view, stop)
                    turn.sample(int(index), fill)
            self.read_again(dataset, chunk.keys(), turn)

    def result(self, dataset: Any, slot: Slot) -> Any:
        return list(dataset.finish(slot.buffers, slot.indices, self.view))


class ItemReader(Reader):
    """``dataset[i]``, sample by sample, then the collate function: what ``DataLoader`` does."""

    def __init__(self, foreign: ForeignCode, delivery: Delivery, batch_size: int, num_threads: int) -> None:
        super().__init__(foreign, delivery, batch_size, num_threads)
        self.chunk = max(1, -(-batch_size // (2 * num_threads)))

    def prepare(self, dataset: Any, slot: Slot) -> None:
        slot.buffers = {}

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        keys = chunk.keys()
        with self.foreign.turn() as turn:
            samples = _items(dataset, keys, self.view, turn, Stop(chunk, workers))
            if len(samples) == len(keys):
                self.read_again(dataset, keys, turn, samples.__getitem__)
        chunk.slot.buffers[chunk.start] = samples

    def result(self, dataset: Any, slot: Slot) -> Any:
        parts = (slot.buffers[chunk.start] for chunk in slot.chunks)
        return self.delivery.collate(list(itertools.chain.from_iterable(parts)))


class ItemsReader(Reader):
    """``dataset.__getitems__(list of positions)``, then the collate function."""

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        keys = chunk.keys()
        with self.foreign.turn() as turn:
            if self.foreign.drew and has_items(dataset):
                chunk.slot.buffers = _items(dataset, keys, self.view, turn, Stop(chunk, workers))
                return
            first = keys[0] if keys else 0
            samples, drew = turn.whole(first, lambda: dataset.__getitems__(keys))
            if drew and has_items(dataset):  # what it drew is the batch's: let it be each sample's
                samples = _items(dataset, keys, self.view, turn, Stop(chunk, workers))
        chunk.slot.buffers = samples

    def result(self, dataset: Any, slot: Slot) -> Any:
        return self.delivery.collate(slot.buffers)


def _items(dataset: Any, keys: list, view: int, turn: Turn, stop: Stop) -> list:
    """Samples one by one; fewer if the pass ended."""
    samples = []
    for key in keys:
        if stop():
            break
        samples.append(turn.sample(key, partial(one_sample, dataset, key, view)))
    return samples


def _positions(slot: Slot) -> Tensor:
    if not isinstance(slot.indices, Tensor):
        raise UserError(f"gather and fill take positions, the sampler gave {slot.indices!r:.80}")
    return slot.indices


def has_items(dataset: Any) -> bool:
    """Whether single items can be had (torch's own base class has a method that says no)."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    method = getattr(type(dataset), "__getitem__", None)
    return method is not None and method is not Dataset.__getitem__
