"""One pass of a ThreadedLoader over an epoch: the consumer's side of the pool."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.loader.errors import LoaderTimeout, describe, several
from kd_lightning.data.loader.readers import END, Reader
from kd_lightning.data.loader.tasks import Batch, Chunk, Shared


class Position:
    """Which batches of an epoch the consumer has got: all below ``delivered``, and those in ``ahead``.

    ``ahead`` is empty unless batches are delivered in order of completion.
    """

    def __init__(self, epoch: int = 0, delivered: int = 0, ahead: tuple[int, ...] | list[int] = ()) -> None:
        self.epoch, self.delivered, self.ahead = epoch, delivered, set(ahead)

    def deliver(self, number: int) -> None:
        """Count batch ``number`` as delivered."""
        self.ahead.add(number)
        while self.delivered in self.ahead:
            self.ahead.remove(self.delivered)
            self.delivered += 1

    def remaining(self, total: int) -> Iterator[int]:
        """The numbers of the batches that are still to come, of ``total`` in the epoch."""
        return (number for number in range(self.delivered, total) if number not in self.ahead)


class Pass:
    """Delivers the batches of one epoch that are not delivered yet, and owns the pool that makes them.

    The pool's threads start with the pass and end with it, however it ends. The window, that is batches submitted and
    not delivered, never exceeds ``prefetch`` (None: what the reader thinks good, once it knows how large a batch is).

    Args:
        dataset, reader: what is read, and how.
        order: sample positions of the epoch for this process, int64 (S,); None for a stream.
        total: number of batches in the epoch; None for a stream.
        position: updated as batches are delivered.
        name: of the threads, with a number behind it.
    """

    def __init__(
        self,
        dataset: Any,
        reader: Reader,
        order: Tensor | None,
        total: int | None,
        position: Position,
        batch_size: int,
        num_threads: int,
        prefetch: int | None,
        in_order: bool,
        timeout: float | None,
        name: str,
    ) -> None:
        self.reader = reader
        self.indices = None if order is None else order.split(batch_size)
        self.position, self.prefetch, self.in_order, self.timeout = position, prefetch, in_order, timeout
        # A stream's batches get their numbers when they are read.
        self.numbers = iter(lambda: None, 0) if total is None else position.remaining(total)
        self.more = True
        self.group = 1  # grows to reader.group: the first batches shall come at once
        self.window = 0
        self.coming: set[Batch] = set()  # submitted and not arrived
        self.arrived: dict[int | None, Batch] = {}  # arrived and not delivered, by number, in order of arrival
        self.failure: BaseException | None = None
        self.waiting_for_first = True
        self.finished = False
        self.shared = Shared(dataset, reader)
        self.pool = ThreadPoolExecutor(num_threads, name, initializer=self.shared.enter_thread)
        self._abandon = weakref.finalize(self, _cancel, self.shared, self.pool)

    def next(self) -> Any:
        """The next batch; raises StopIteration at the end of the epoch, and again the error of a pass that failed."""
        if self.failure is not None:
            raise self.failure
        if self.finished:
            raise StopIteration
        try:
            self._top_up()
            batch = self._await()
            if batch is not None and batch.error is not None:
                raise batch.error
        except BaseException as error:  # KeyboardInterrupt among them
            self.fail(error)
            self.arrived.clear()
            raise
        if batch is None:
            self._finish()
            raise StopIteration
        self.window -= 1
        self.position.deliver(batch.number)
        result, batch.result = batch.result, None
        return result

    def _top_up(self) -> None:
        """Submit as many batches as the window has room for."""
        while self.more:
            limit = self.prefetch or self.reader.window
            group = min(self.group, limit)
            # A group waits until the window has room for all of it, so that threads do not get crumbs.
            if limit - self.window < group:
                return
            chunks: list[Chunk] = []
            for _ in range(group):
                number = next(self.numbers, END)
                if number is END:
                    self.more = False
                    break
                batch = self._batch(number)
                self.coming.add(batch)
                self.window += 1
                parts = batch.cut(self.reader.chunk)
                if group == 1:
                    for chunk in parts:
                        self.pool.submit(self.shared.run, [chunk])
                else:
                    chunks += parts
            if chunks:
                self.pool.submit(self.shared.run, chunks)
            self.group = min(self.group * 2, self.reader.group, max(1, limit // 2))

    def _batch(self, number: int | None) -> Batch:
        batch = Batch(number, None if self.indices is None else self.indices[number])
        self.reader.prepare(self.shared.dataset, batch)
        return batch

    def _await(self) -> Batch | None:
        """The batch to deliver now, None at the end of the epoch."""
        began = time.monotonic()
        while True:
            number = self.position.delivered if self.in_order else next(iter(self.arrived), None)
            if number in self.arrived:
                return self.arrived.pop(number)
            if not self.coming:
                return None
            left = None if self.timeout is None else began + self.timeout - time.monotonic()
            try:
                arrivals = self.shared.arrivals.get(timeout=None if left is None else max(0.0, left))
            except Empty:
                raise self._timed_out() from None
            if self.failure is not None:  # closed by another thread
                raise self.failure
            if self.waiting_for_first:
                self._first_arrived()
            for batch in arrivals:
                self._receive(batch)

    def _receive(self, batch: Batch) -> None:
        self.coming.discard(batch)
        if batch.result is END:
            self.window -= 1
            self.more = False
        elif batch.number is None:  # a stream that could not even be opened
            raise batch.error
        else:
            self.arrived[batch.number] = batch

    def _first_arrived(self) -> None:
        """Pool threads set torch to one thread each, which torch also takes as the default of threads that anybody
        starts later. Setting this thread's own number again mends the default and changes nothing else."""
        self.waiting_for_first = False
        torch.set_num_threads(torch.get_num_threads())

    def _timed_out(self) -> LoaderTimeout:
        """The error that names the batch waited for, and the sample that some thread has been reading the longest."""
        running = [c for b in self.coming for c in b.chunks if c.begun is not None and not c.ended]
        text = f"no batch came within timeout={self.timeout:g} s"
        if not running:
            return LoaderTimeout(f"{text}: no thread got to run; raise timeout or lower the machine's load")
        slowest = min(running, key=lambda chunk: chunk.sample_since)
        batch, seconds = slowest.batch, time.monotonic() - slowest.sample_since
        if batch.indices is None:
            return LoaderTimeout(f"{text}: the stream has not given batch {batch.number} for {seconds:.1f} s")
        if slowest.at is None:
            indices = batch.indices[slowest.start : slowest.end].tolist()
            return LoaderTimeout(f"{text}: batch {batch.number} hangs in one of {several(indices)}")
        index = int(batch.indices[slowest.at])
        where = f"{describe(self.shared.dataset, index)}, in batch {batch.number}"
        return LoaderTimeout(f"{text}: {where}, has been read for {seconds:.1f} s", index)

    def _finish(self) -> None:
        self.finished = True
        self._abandon.detach()
        self.pool.shutdown(wait=True)  # every task is done: the threads only have to leave

    def fail(self, error: BaseException) -> None:
        """End the pass with ``error``: what is queued is cancelled, what runs stops at its next sample."""
        if not isinstance(error, Exception):
            error = RuntimeError(
                f"this pass over the data was ended by {type(error).__name__}; iterate the loader again"
            )
        self.failure = error
        self._abandon()
        self.shared.arrivals.put([])  # wakes a consumer that waits in another thread


def _cancel(shared: Shared, pool: ThreadPoolExecutor) -> None:
    """Also the finaliser of an abandoned pass: it must not wait, and refers to nothing that refers to the pass."""
    shared.stopped = True
    pool.shutdown(wait=False, cancel_futures=True)


def join(name: str, seconds: float | None) -> None:
    """Wait until the threads of the passes called ``name`` have left, at most ``seconds``."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith(f"{name}_") and thread is not threading.current_thread():
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
