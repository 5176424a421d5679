"""What pool threads of a ThreadedLoader do: read chunks of batches, and hand finished batches to the consumer.

Locks, all of them: each batch has one, held only to count its finished chunks. No code of the data set runs under it
and nothing is waited for under it, so there is no order of locks to get wrong. (A stream has one more, which
serialises the reading of the user's iterator: see ``_loader_readers.StreamReader``.) Finished batches travel through a
``queue.SimpleQueue``; stopping is one attribute that goes from False to True once.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from kd_lightning.data.loader.errors import sample_error


class Batch:
    """A batch on its way through the pool; ``result`` or ``error`` is set once, by the thread that ends its last chunk.

    ``number`` and ``indices`` are None for a stream's batch until it is read.
    """

    __slots__ = ("buffers", "chunks", "error", "indices", "left", "lock", "number", "result")

    def __init__(self, number: int | None, indices: Tensor | None) -> None:
        self.number, self.indices = number, indices
        self.buffers: Any = None
        self.chunks: list[Chunk] = []
        self.left = 0
        self.lock = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None

    def cut(self, size: int) -> list[Chunk]:
        """Split the batch into chunks of ``size`` samples (one chunk for a stream's)."""
        total = 1 if self.indices is None else self.indices.shape[0]
        self.chunks = [Chunk(self, at, min(total, at + size)) for at in range(0, total, size)]
        self.left = len(self.chunks)
        return self.chunks


class Chunk:
    """Positions ``start:end`` of a batch, read by one thread.

    ``position`` counts the samples begun so far, ``begun`` is the time at which a thread took the chunk: what the
    error text of a failed or hanging sample is made of.
    """

    __slots__ = ("batch", "begun", "end", "ended", "error", "position", "sample_since", "start")

    def __init__(self, batch: Batch, start: int, end: int) -> None:
        self.batch, self.start, self.end = batch, start, end
        self.position: int | None = None
        self.begun: float | None = None
        self.sample_since = 0.0
        self.ended = False
        self.error: BaseException | None = None

    @property
    def at(self) -> int | None:
        """Position in the batch of the sample that is being read, where that is known."""
        if self.position is not None:
            return min(self.start + self.position, self.end - 1)
        return self.start if self.end - self.start == 1 else None


class Shared:
    """What the consumer and its pool threads share. It does not refer to the iterator, so that the iterator can die."""

    def __init__(self, dataset: Any, reader: Any) -> None:
        self.dataset, self.reader = dataset, reader
        self.stopped = False
        self.arrivals: SimpleQueue[list[Batch]] = SimpleQueue()
        self._own = threading.local()
        _alive.add(self)

    def enter_thread(self) -> None:
        """Runs first in each pool thread. Parallelism is over samples: one thread each for torch's own loops."""
        torch.get_num_threads()  # makes torch set up this thread now; its first computation would undo the next line
        torch.set_num_threads(1)

    def dataset_here(self) -> Any:
        """The data set to use in this thread: its own copy where the data set makes copies."""
        try:
            return self._own.dataset
        except AttributeError:
            self._own.dataset = thread_copy(self.dataset)
            return self._own.dataset

    def run(self, chunks: list[Chunk]) -> None:
        """The task: read some chunks. Batches that they complete arrive together, so the consumer wakes once a task."""
        finished = []
        if len(chunks) > 1 and not self.stopped:
            chunks[0].begun = chunks[0].sample_since = time.monotonic()
            # Each chunk that is not read by this meets the error again in read(), as an error of its own batch.
            with contextlib.suppress(BaseException):
                self.reader.read_group(self.dataset_here(), [chunk.batch for chunk in chunks])
        for chunk in chunks:
            if self.stopped:
                return
            batch = chunk.batch
            chunk.begun = chunk.sample_since = time.monotonic()
            try:
                self.reader.read(self.dataset_here(), chunk, self)
            except BaseException as error:  # whatever it is (SystemExit too), it belongs to the consumer
                chunk.error = error
            chunk.ended = True
            with batch.lock:
                batch.left -= 1
                last = batch.left == 0
            if last and not self.stopped:
                self._complete(batch)
                finished.append(batch)
        if finished:
            self.arrivals.put(finished)

    def _complete(self, batch: Batch) -> None:
        # The first failing position is reported, not the first in time: the same error at any number of threads.
        failed = next((chunk for chunk in batch.chunks if chunk.error is not None), None)
        if failed is None:
            try:
                batch.result = self.reader.complete(self.dataset_here(), batch)
            except BaseException as error:
                batch.error = sample_error(self.dataset, batch.number, self._listed(batch), None, error)
        else:
            batch.error = sample_error(self.dataset, batch.number, self._listed(batch), failed.at, failed.error)
        # Chunks and batch refer to each other: without this, memory would wait for the garbage collector.
        batch.buffers, batch.chunks = None, []

    @staticmethod
    def _listed(batch: Batch) -> list[int] | None:
        return None if batch.indices is None else batch.indices.tolist()


class Stop:
    """Handed to a data set's ``fill`` as ``stop``: call it once before each sample. True = the batch is not wanted.

    The calls count the samples, which is how a loader knows which one hangs.
    """

    __slots__ = ("chunk", "shared")

    def __init__(self, chunk: Chunk, shared: Shared) -> None:
        self.chunk, self.shared = chunk, shared

    def __call__(self) -> bool:
        chunk = self.chunk
        chunk.position = 0 if chunk.position is None else chunk.position + 1
        chunk.sample_since = time.monotonic()
        return self.shared.stopped


def thread_copy(dataset: Any) -> Any:
    """The data set for one pool thread: ``dataset.per_thread()`` where there is such a method, also inside a Subset."""
    if hasattr(dataset, "per_thread"):
        return dataset.per_thread()
    if isinstance(dataset, Subset):
        inner = thread_copy(dataset.dataset)
        if inner is not dataset.dataset:
            return Subset(inner, dataset.indices)
    return dataset


_alive: weakref.WeakSet[Shared] = weakref.WeakSet()


def _stop_all() -> None:
    for shared in list(_alive):
        shared.stopped = True


# At interpreter exit concurrent.futures waits for what its threads still have to do. Told to stop first, that is the
# samples being read and not the whole window. Python offers no public hook this early; without it exit is only slower.
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_stop_all)
