"""The ways in which a data set can be read, from whole batches without Python per sample down to one item at a time.

``choose_reader`` takes the best that the data set offers:

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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, default_collate

from kd_lightning.batch import Batch
from kd_lightning.data.loader.foreign import ForeignCode, Turn
from kd_lightning.data.loader.memory import joined, pinned, size_of, split
from kd_lightning.data.loader.reading_twice import require_equal
from kd_lightning.data.loader.tasks import Chunk, Slot, Stop, Workers
from kd_lightning.data.loader.wrappers import fills, gathers, one_sample
from kd_lightning.data.samples import view_number
from kd_lightning.errors import UserError

_GROUPED_SAMPLES = 1024  # above this, a vectorised call gains nothing by being larger
_GROUPED_BYTES = 8 << 20  # and below this it stays in the processor's cache
END = object()


@dataclass
class Delivery:
    """What becomes of the samples of a pass, besides being read.

    Attributes:
        view, split: of the batches.
        as_batch: deliver :class:`~kd_lightning.batch.Batch`.
        pin: into pinned memory.
        collate: makes a batch of a list of samples.
        late: collate in the consumer's thread, one batch at a time (a function that does not say ``thread_safe``).
        reread: read every so-many-th position a second time and compare; 0: none.
        extra_views: the result has a third field, so many further inputs, which become the batch's ``also``.
    """

    view: int = 0
    split: str = ""
    as_batch: bool = False
    pin: bool = False
    collate: Callable[[list], Any] = default_collate
    late: bool = False
    reread: int = 0
    extra_views: int = 0

    def batch(self, result: Sequence[Any], index: Tensor | None) -> Batch:
        """What a data set gave, ``(inputs, target)`` and perhaps further inputs, as a batch."""
        made = Batch(result[0], result[1], index, self.view, self.split)
        if not self.extra_views:
            return made
        views = (view_number(self.view, which) for which in range(1, self.extra_views + 1))
        also = (made._replace(inputs=inputs, view=view) for inputs, view in zip(result[2], views, strict=True))
        return made._replace(also=tuple(also))


class Reader:
    """Reads chunks in pool threads. ``chunk``: samples a chunk; ``group``: batches a task; ``movable``: other threads
    may go on where some left."""

    movable = True

    def __init__(self, foreign: ForeignCode, delivery: Delivery, batch_size: int, num_threads: int) -> None:
        self.foreign, self.delivery, self.view, self.late = foreign, delivery, delivery.view, delivery.late
        self.chunk = batch_size
        self.group = 1
        self.window = max(3, num_threads + 1)  # batches to read ahead if the user does not say

    @staticmethod
    def threads(offered: int) -> int:
        """How many threads to use if the user does not say, of those that the machine offers this process."""
        return offered

    def prepare(self, dataset: Any, slot: Slot) -> None:
        """Runs in the consumer, before the batch's tasks are given to the pool."""

    def read_group(self, dataset: Any, slots: list[Slot]) -> None:
        """Runs once before the chunks of a task that has several batches are read."""

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        """Read the chunk; raise what the data set raises."""
        raise NotImplementedError

    def at_end(self, slot: Slot) -> bool:
        """Whether a stream's slot found nothing more to read."""
        return False

    def result(self, dataset: Any, slot: Slot) -> Any:
        """The finished batch, as the data set or the collate function makes it."""
        raise NotImplementedError

    def complete(self, dataset: Any, slot: Slot) -> Any:
        """The batch as the consumer gets it."""
        if self.at_end(slot):
            return END
        if self.late or not self.foreign.calm:
            result = self.foreign.seeded((slot.number or 0, 1), lambda: self.result(dataset, slot))
        else:
            result = self.result(dataset, slot)
        if self.delivery.as_batch:
            if not isinstance(result, (tuple, list)) or len(result) < 2:
                raise UserError(
                    f"as_batch=True needs samples of (inputs, target), the data set gave {type(result).__name__}"
                )
            index = slot.indices if isinstance(slot.indices, Tensor) else None
            result = self.delivery.batch(result, index)
        return pinned(result) if self.delivery.pin else result

    def read_again(self, dataset: Any, keys: list, turn: Turn, got: Callable[[int], Any] | None = None) -> None:
        """Compare every so-many-th sample with a second reading; ``got(k)`` is the first one, where that is at hand."""
        if self.delivery.reread:
            for k, key in enumerate(keys):
                if isinstance(key, int) and key % self.delivery.reread == 0:
                    read = partial(one_sample, dataset, key, self.view)
                    before = got(k) if got is not None else turn.sample(key, read)
                    require_equal(before, turn.sample(key, read), key)


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


class StreamReader(Reader):
    """An iterable data set: one thread opens and advances it. A continued pass reads and drops what was delivered
    before."""

    movable = False  # what it holds open belongs to its thread

    def __init__(
        self,
        foreign: ForeignCode,
        delivery: Delivery,
        batch_size: int,
        num_threads: int,
        skip: int,
        dropped: set[int],
        drop_last: bool,
    ) -> None:
        super().__init__(foreign, delivery, batch_size, num_threads)
        self.size, self.skip, self.dropped, self.drop_last = batch_size, skip, dropped, drop_last
        self.items: Any = None
        self.states: Any = None  # of the generators, where the stream draws from them
        self.number = skip
        self.ended = False

    @staticmethod
    def threads(offered: int) -> int:
        """What the stream holds (a connection, a file) may belong to the thread that opened it."""
        return 1

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        slot = chunk.slot
        slot.buffers = []
        try:
            with self.foreign.turn() as turn:
                while not self.ended and not workers.stopped:
                    slot.number = self.number
                    chunk.sample_since = time.monotonic()
                    slot.buffers, self.states = turn.stream(self.states, lambda: self._take(dataset, workers))
                    self.number += 1
                    if slot.number not in self.dropped:
                        break
        except BaseException:
            self.ended = True  # a generator that raised is over, nobody shall read on behind the error
            raise

    def _take(self, dataset: Any, workers: Workers) -> list:
        """The stream's next batch of items; shorter or empty at its end."""
        if self.items is None:
            self.items = iter(dataset)
            for _ in itertools.islice(self.items, self.skip * self.size):
                if workers.stopped:
                    return []
        samples: list = []
        while len(samples) < self.size and not workers.stopped:
            try:
                samples.append(next(self.items))
            except StopIteration:
                self.ended = True
                return [] if self.drop_last else samples
        return samples

    def at_end(self, slot: Slot) -> bool:
        return not slot.buffers

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


def has_getitems(dataset: Any) -> bool:
    """torch's Subset has ``__getitems__`` always; it is worth calling where the data set inside has it."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def is_stream(dataset: Any) -> bool:
    """An iterable data set: no sample has a position."""
    if isinstance(dataset, IterableDataset):
        return True
    by_position = hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")
    return not by_position and not gathers(dataset) and not fills(dataset)


def choose_reader(dataset: Any, single: bool) -> type[Reader]:
    """The fastest way that the data set offers; ``single``: samples are asked for one by one, for a collate function."""
    if is_stream(dataset):
        return StreamReader
    if not single and gathers(dataset):
        return GatherReader
    if not single and fills(dataset):
        return FillReader
    return ItemsReader if has_getitems(dataset) else ItemReader


def read_now(dataset: Any, indices: Tensor, view: int, seed: int) -> Any:
    """What a loader delivers for some samples in one view, read in this thread."""
    reader = choose_reader(dataset, single=False)(ForeignCode(dataset, seed, view), Delivery(view), len(indices), 1)
    slot = Slot(0, indices)
    workers = Workers(dataset, reader)
    reader.prepare(dataset, slot)
    for chunk in slot.cut(len(indices)):
        reader.read(dataset, chunk, workers)
    return reader.complete(dataset, slot)
