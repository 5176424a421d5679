"""What pool threads of a ThreadedLoader do: read chunks of batches, and hand finished batches to the consumer.

Locks, all of them: each batch has one, held only to count its finished chunks. No code of the data set runs under it
and nothing is waited for under it, so there is no order of locks to get wrong. (Code that is not ours runs under one
more, the loan of the generators: see ``foreign.py``.) Finished batches travel through a ``queue.SimpleQueue``; stopping
is one attribute that goes from False to True once.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kd_lightning.data.loader.errors import SampleError, sample_error
from kd_lightning.data.loader.wrappers import thread_copy

if TYPE_CHECKING:
    from kd_lightning.data.loader.reader import Reader

Keys = Tensor | list
"""Positions of samples, int64 (N,); or a list of whatever else the data set's items are asked for by."""


class Slot:
    """A batch on its way through the pool; ``result`` or ``error`` is set once, by the thread that ends its last chunk,
    or by the consumer where it is ``unfinished``: read, and to be collated in the consumer's thread.

    ``number`` and ``indices`` are None for a stream's batch until it is read.
    """

    __slots__ = ("buffers", "chunks", "error", "indices", "left", "lock", "number", "result", "unfinished")

    def __init__(self, number: int | None, indices: Keys | None) -> None:
        self.number, self.indices = number, indices
        self.buffers: Any = None
        self.chunks: list[Chunk] = []
        self.left = 0
        self.lock = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None
        self.unfinished = False

    def cut(self, size: int) -> list[Chunk]:
        """Split the batch into chunks of ``size`` samples (one chunk for a stream's)."""
        total = 1 if self.indices is None else len(self.indices)
        self.chunks = [Chunk(self, at, min(total, at + size)) for at in range(0, max(1, total), size)]
        self.left = len(self.chunks)
        return self.chunks

    def keys(self) -> list | None:
        """The positions as a list; None for a stream's batch."""
        return self.indices.tolist() if isinstance(self.indices, Tensor) else self.indices


class Chunk:
    """Positions ``start:end`` of a batch, read by one thread.

    ``position`` counts the samples begun so far, ``begun`` is the time at which a thread took the chunk: what the
    error text of a failed or hanging sample is made of.
    """

    __slots__ = ("begun", "end", "ended", "error", "position", "sample_since", "slot", "start")

    def __init__(self, slot: Slot, start: int, end: int) -> None:
        self.slot, self.start, self.end = slot, start, end
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

    def keys(self) -> list:
        """Its part of the batch's positions."""
        indices = self.slot.indices
        assert indices is not None
        part = indices[self.start : self.end]
        return part.tolist() if isinstance(part, Tensor) else part


class Workers:
    """What the consumer and its pool threads share. It does not refer to the iterator, so that the iterator can die."""

    def __init__(self, dataset: Any, reader: Reader) -> None:
        self.dataset, self.reader = dataset, reader
        self.stopped = False
        self.arrivals: SimpleQueue[list[Slot]] = SimpleQueue()
        self._own = threading.local()
        reader.foreign.calmed = partial(self.arrivals.put, [])  # others can be read ahead now: wakes the consumer
        _alive.add(self)

    def stop(self) -> None:
        """Nothing more is begun. Called from any thread, also by finalisers: it waits for nothing."""
        self.stopped = True
        self.reader.foreign.close()

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
                self.reader.read_group(self.dataset_here(), [chunk.slot for chunk in chunks])
        for chunk in chunks:
            if self.stopped:
                return
            slot = chunk.slot
            chunk.begun = chunk.sample_since = time.monotonic()
            try:
                self.reader.read(self.dataset_here(), chunk, self)
            except BaseException as error:  # whatever it is (SystemExit too), it belongs to the consumer
                if self.is_ctrl_c(error):
                    raise
                chunk.error = error
            chunk.ended = True
            with slot.lock:
                slot.left -= 1
                last = slot.left == 0
            if last and not self.stopped:
                self._complete(slot)
                finished.append(slot)
        if finished:
            self.arrivals.put(finished)

    def _complete(self, slot: Slot) -> None:
        # The first failing position is reported, not the first in time: the same error at any number of threads.
        failed = next((chunk for chunk in slot.chunks if chunk.error is not None), None)
        if failed is not None:
            self._fail(slot, failed.at, failed.error)
        elif self.reader.late and not self.reader.at_end(slot):
            slot.unfinished = True
        else:
            self.finish(slot)

    def finish(self, slot: Slot) -> None:
        """Make the result of a batch whose samples are read."""
        slot.unfinished = False
        try:
            slot.result = self.reader.complete(self.dataset_here(), slot)
        except BaseException as error:
            if self.is_ctrl_c(error):
                raise
            self._fail(slot, None, error)
        # Chunks and batch refer to each other: without this, memory would wait for the garbage collector.
        slot.buffers, slot.chunks = None, []

    def _fail(self, slot: Slot, at: int | None, error: BaseException | None) -> None:
        try:
            slot.error = sample_error(self.dataset, slot.number, slot.keys(), at, error)
        except Exception as second:  # an error that is lost would be waited for for ever
            slot.error = SampleError(f"batch {slot.number}: {type(error).__name__}, told by {type(second).__name__}")
        slot.buffers, slot.chunks = None, []

    @staticmethod
    def is_ctrl_c(error: BaseException) -> bool:
        """Whether the user wants out: only the main thread is told, where samples are read in the consumer's."""
        return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


class Stop:
    """Handed to a data set's ``fill`` as ``stop``: call it once before each sample. True = the batch is not wanted.

    The calls count the samples, which is how a loader knows which one hangs.
    """

    __slots__ = ("chunk", "workers")

    def __init__(self, chunk: Chunk, workers: Workers) -> None:
        self.chunk, self.workers = chunk, workers

    def __call__(self) -> bool:
        chunk = self.chunk
        chunk.position = 0 if chunk.position is None else chunk.position + 1
        chunk.sample_since = time.monotonic()
        return self.workers.stopped


_alive: weakref.WeakSet[Workers] = weakref.WeakSet()


def _stop_all() -> None:
    for workers in list(_alive):
        workers.stopped = True


# At interpreter exit concurrent.futures waits for what its threads still have to do. Told to stop first, that is the
# samples being read and not the whole window. Python offers no public hook this early; without it exit is only slower.
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_stop_all)
