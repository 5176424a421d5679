"""The ways in which a data set can be read, from whole batches without Python per sample down to one item at a time.

``choose_reader`` takes the best that the data set offers:

==================  =====================================================  ===========================================
the data set has    a task is                                              which is fastest for
==================  =====================================================  ===========================================
``gather``          several whole batches                                  data in memory
``fill``            a chunk of a batch, written into the batch's memory    files: decoding costs more than Python
``__getitems__``    one batch                                              what torch's own convention was made for
``__getitem__``     a chunk of a batch                                     anything
``__iter__``        one batch, read by one thread at a time                torch's IterableDataset
==================  =====================================================  ===========================================
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import IterableDataset, Subset, default_collate

from kd_lightning.batch import Batch as OutBatch
from kd_lightning.data.loader.memory import pinned, size_of, split
from kd_lightning.data.loader.tasks import Batch, Chunk, Shared, Stop
from kd_lightning.errors import UserError

_GROUPED_SAMPLES = 1024  # above this, a vectorised call gains nothing by being larger
_GROUPED_BYTES = 8 << 20  # and below this it stays in the processor's cache
END = object()


class Reader:
    """Reads chunks in pool threads. ``chunk``: samples a chunk; ``group``: batches a task."""

    def __init__(
        self,
        batch_size: int,
        num_threads: int,
        view: int = 0,
        split: str = "",
        as_batch: bool = False,
        pin: bool = False,
        collate: Callable[[list], Any] | None = None,
    ) -> None:
        self.view, self.split, self.as_batch, self.pin = view, split, as_batch, pin
        self.collate = collate or default_collate
        self.chunk = batch_size
        self.group = 1
        self.window = max(3, num_threads + 1)  # batches to read ahead if the user does not say

    @staticmethod
    def threads(offered: int) -> int:
        """How many threads to use if the user does not say, of those that the machine offers this process."""
        return offered

    def prepare(self, dataset: Any, batch: Batch) -> None:
        """Runs in the consumer, before the batch's tasks are given to the pool."""

    def read_group(self, dataset: Any, batches: list[Batch]) -> None:
        """Runs once before the chunks of a task that has several batches are read."""

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        """Read the chunk; raise what the data set raises."""
        raise NotImplementedError

    def result(self, dataset: Any, batch: Batch) -> Any:
        """The finished batch, as the data set or the collate function makes it."""
        raise NotImplementedError

    def complete(self, dataset: Any, batch: Batch) -> Any:
        """The batch as the consumer gets it. Runs in the thread that ended the batch's last chunk."""
        result = self.result(dataset, batch)
        if result is END:
            return END
        if self.as_batch:
            if not isinstance(result, (tuple, list)) or len(result) < 2:
                raise UserError(
                    f"as_batch=True needs samples of (inputs, target), the data set gave {type(result).__name__}"
                )
            result = OutBatch(result[0], result[1], batch.indices, self.view, self.split)
        return pinned(result) if self.pin else result


class GatherReader(Reader):
    """``dataset.gather(indices, view) -> (inputs, target)``: a vectorised call for several batches.

    How many batches are gathered together is decided when the size of the first one is known. They are slices of the
    memory that the call returned, which lives as long as the last of them.
    """

    def __init__(self, batch_size: int, num_threads: int, **rest: Any) -> None:
        super().__init__(batch_size, num_threads, **rest)
        self.batch_size, self.window = batch_size, 4

    @staticmethod
    def threads(offered: int) -> int:
        """Gathering is bound by memory, and one thread gathers faster than most models train."""
        return max(1, min(4, offered // 2))

    def read_group(self, dataset: Any, batches: list[Batch]) -> None:
        together = dataset.gather(torch.cat([batch.indices for batch in batches]), self.view)
        sizes = [batch.indices.shape[0] for batch in batches]
        for batch, fields in zip(batches, zip(*(split(field, sizes) for field in together), strict=True), strict=True):
            batch.buffers = list(fields)

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        batch = chunk.batch
        if batch.buffers is None:
            batch.buffers = dataset.gather(batch.indices, self.view)
            self.group = min(_GROUPED_SAMPLES // self.batch_size, _GROUPED_BYTES // max(1, size_of(batch.buffers)))
            self.group = max(1, self.group)
            self.window = 4 * self.group

    def result(self, dataset: Any, batch: Batch) -> Any:
        return list(batch.buffers)


class FillReader(Reader):
    """``allocate``, ``fill``, ``finish``: samples are written at their places of a batch allocated beforehand."""

    def __init__(self, batch_size: int, num_threads: int, **rest: Any) -> None:
        super().__init__(batch_size, num_threads, **rest)
        # Two chunks a thread: fine enough that threads end a batch together, coarse enough to cost nothing.
        self.chunk = max(1, -(-batch_size // (2 * num_threads)))

    def prepare(self, dataset: Any, batch: Batch) -> None:
        batch.buffers = dataset.allocate(len(batch.indices))

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        batch = chunk.batch
        indices = batch.indices[chunk.start : chunk.end]
        dataset.fill(batch.buffers, chunk.start, indices, self.view, Stop(chunk, shared))

    def result(self, dataset: Any, batch: Batch) -> Any:
        return list(dataset.finish(batch.buffers, batch.indices, self.view))


class ItemReader(Reader):
    """``dataset[i]``, sample by sample, then the collate function: what ``DataLoader`` does."""

    def __init__(self, batch_size: int, num_threads: int, **rest: Any) -> None:
        super().__init__(batch_size, num_threads, **rest)
        self.chunk = max(1, -(-batch_size // (2 * num_threads)))

    def prepare(self, dataset: Any, batch: Batch) -> None:
        batch.buffers = {}

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        stop, samples = Stop(chunk, shared), []
        for index in chunk.batch.indices[chunk.start : chunk.end].tolist():
            if stop():
                return
            samples.append(dataset[index])
        chunk.batch.buffers[chunk.start] = samples

    def result(self, dataset: Any, batch: Batch) -> Any:
        parts = (batch.buffers[chunk.start] for chunk in batch.chunks)
        return self.collate(list(itertools.chain.from_iterable(parts)))


class ItemsReader(Reader):
    """``dataset.__getitems__(list of positions)``, then the collate function."""

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        chunk.batch.buffers = dataset.__getitems__(chunk.batch.indices.tolist())

    def result(self, dataset: Any, batch: Batch) -> Any:
        return self.collate(batch.buffers)


class StreamReader(Reader):
    """An iterable data set: one thread at a time takes a batch of items, collating goes on in parallel.

    The lock is held while the user's iterator runs: an iterator must not be advanced by two threads. Nothing else is
    locked or waited for under it. A continued pass reads and drops the samples that were delivered before.
    """

    def __init__(self, batch_size: int, num_threads: int, skip: int, dropped: set[int], drop_last: bool, **rest: Any):
        super().__init__(batch_size, num_threads, **rest)
        self.size, self.skip, self.dropped, self.drop_last = batch_size, skip, dropped, drop_last
        self.lock = threading.Lock()
        self.items: Any = None
        self.number = skip
        self.ended = False

    def read(self, dataset: Any, chunk: Chunk, shared: Shared) -> None:
        batch = chunk.batch
        batch.buffers = []
        with self.lock:
            chunk.sample_since = time.monotonic()
            try:
                while not self.ended and not shared.stopped:
                    batch.number = self.number
                    batch.buffers = self._take(dataset, shared)
                    self.number += 1
                    if batch.number not in self.dropped:
                        break
            except BaseException:
                self.ended = True  # a generator that raised is over, nobody shall read on behind the error
                raise

    def _take(self, dataset: Any, shared: Shared) -> list:
        """The stream's next batch of items; shorter or empty at its end."""
        if self.items is None:
            self.items = iter(dataset)
            for _ in itertools.islice(self.items, self.skip * self.size):
                if shared.stopped:
                    return []
        samples: list = []
        while len(samples) < self.size and not shared.stopped:
            try:
                samples.append(next(self.items))
            except StopIteration:
                self.ended = True
                return [] if self.drop_last else samples
        return samples

    def result(self, dataset: Any, batch: Batch) -> Any:
        return self.collate(batch.buffers) if batch.buffers else END


def has_getitems(dataset: Any) -> bool:
    """torch's Subset has ``__getitems__`` always; it is worth calling where the data set inside has it."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def is_stream(dataset: Any) -> bool:
    """An iterable data set: no sample has a position."""
    by_position = ("gather", "fill", "__getitems__", "__getitem__")
    return isinstance(dataset, IterableDataset) or not any(hasattr(dataset, name) for name in by_position)


def choose_reader(dataset: Any, collate: Callable[[list], Any] | None) -> type[Reader]:
    """The fastest way that the data set offers; a collate function of the user's own asks for single samples."""
    if is_stream(dataset):
        return StreamReader
    if collate is None and hasattr(dataset, "gather"):
        return GatherReader
    if collate is None and hasattr(dataset, "fill"):
        return FillReader
    return ItemsReader if has_getitems(dataset) else ItemReader
