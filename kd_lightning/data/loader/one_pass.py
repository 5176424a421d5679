"""One pass of a ThreadedLoader over an epoch: the consumer's side of the pool."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from typing import Any

import torch

from kd_lightning.data.loader.errors import LoaderTimeout, describe, several
from kd_lightning.data.loader.plan import Plan
from kd_lightning.data.loader.reader import END, Reader
from kd_lightning.data.loader.state import Position
from kd_lightning.data.loader.tasks import Chunk, Slot, Workers

_PIECE = 1.0
"""Seconds at most that are waited for a batch without a look at how long that was."""


class ConsumersThread:
    """In place of a pool: tasks are done where they are submitted."""

    def submit(self, task: Callable[..., None], *arguments: Any) -> None:
        """Do it now."""
        task(*arguments)

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """There is nothing to wait for."""


class Pass:
    """Delivers the batches of one epoch that are not delivered yet, and owns the pool that makes them.

    The pool's threads start with the pass and end with it, however it ends. The window, that is batches submitted and
    not delivered, never exceeds ``prefetch`` (None: what the reader thinks good, once it knows how large a batch is);
    it is one batch, the one that the consumer waits for, as long as the data set's code must not run beside it.

    A batch that failed is an error in its place, and the next call goes on behind it.

    Args:
        dataset, reader: what is read, and how.
        plan: which batches are to come; None for a stream.
        position: updated as batches are delivered.
        num_threads: 0: read in the consumer's thread.
        name: of the threads, with a number behind it.
    """

    def __init__(
        self,
        dataset: Any,
        reader: Reader,
        plan: Plan | None,
        position: Position,
        num_threads: int,
        prefetch: int | None,
        in_order: bool,
        timeout: float | None,
        name: str,
    ) -> None:
        self.reader, self.plan, self.position = reader, plan, position
        self.prefetch, self.in_order, self.timeout = prefetch, in_order, timeout
        self.more = True
        self.group = 1  # grows to reader.group: the first batches shall come at once
        self.window = 0
        self.coming: set[Slot] = set()  # submitted and not arrived
        self.arrived: dict[int | None, Slot] = {}  # arrived and not delivered, by number, in order of arrival
        self.failure: BaseException | None = None
        self.failed: int | None = None  # number of the batch whose error was raised last
        self.waiting_for_first = num_threads > 0
        self.finished = False
        self.workers = Workers(dataset, reader)
        self.num_threads, self.name = num_threads, name
        self._open_pool()

    def next(self) -> Any:
        """The next batch; raises StopIteration at the end of the epoch, and where a pass was ended by an error."""
        if self.failure is not None:
            failure, self.failure, self.finished = self.failure, None, True
            raise failure
        if self.finished:
            raise StopIteration
        if self.failed is not None:  # whoever goes on has passed over it
            self.position.deliver(self.failed)
            self.failed = None
            if self.reader.movable:
                self._abandon.detach()
                self._open_pool()
        try:
            self._top_up()
            slot = self._await()
            if slot is not None and slot.unfinished:
                self.workers.finish(slot)
        except BaseException as error:  # KeyboardInterrupt among them
            self.fail(error)
            self.arrived.clear()
            if isinstance(error, Exception):
                self.failure, self.finished = None, True
            raise
        if slot is None:
            self._finish()
            raise StopIteration
        self.window -= 1
        result, slot.result = slot.result, None
        if slot.error is not None:
            self.failed = slot.number
            if self.reader.movable:  # the error may end it all: threads end what they have and leave
                self.pool.shutdown(wait=False)
            raise slot.error
        assert slot.number is not None
        self.position.deliver(slot.number)
        return result

    def _open_pool(self) -> None:
        self.pool: ThreadPoolExecutor | ConsumersThread = ConsumersThread()
        if self.num_threads:
            self.pool = ThreadPoolExecutor(self.num_threads, self.name, initializer=self.workers.enter_thread)
        self._abandon = weakref.finalize(self, _cancel, self.workers, self.pool)

    def _top_up(self) -> None:
        """Submit as many batches as the window has room for."""
        while self.more:
            alone = not self.num_threads or not self.reader.foreign.calm
            limit = 1 if alone else self.prefetch or self.reader.window
            group = min(self.group, limit)
            # A group waits until the window has room for all of it, so that threads do not get crumbs.
            if limit - self.window < group:
                return
            chunks: list[Chunk] = []
            for _ in range(group):
                slot = self._slot()
                if slot is None:
                    self.more = False
                    break
                self.coming.add(slot)
                self.window += 1
                parts = slot.cut(self.reader.chunk)
                if group == 1:
                    for chunk in parts:
                        self.pool.submit(self.workers.run, [chunk])
                else:
                    chunks += parts
            if chunks:
                self.pool.submit(self.workers.run, chunks)
            self.group = min(self.group * 2, self.reader.group, max(1, limit // 2))

    def _slot(self) -> Slot | None:
        """The next batch to read, None at the end of the epoch. A stream's get their numbers when they are read."""
        if self.plan is None:
            slot = Slot(None, None)
        else:
            coming = self.plan.next()
            if coming is None:
                return None
            slot = Slot(*coming)
        self.reader.prepare(self.workers.dataset, slot)
        return slot

    def _await(self) -> Slot | None:
        """The batch to deliver now, None at the end of the epoch.

        What is waited is counted in short pieces, each for no more than it was meant to be: while the process is stopped
        (Ctrl-Z, a job that is suspended) the clock goes on, and nobody could have read.
        """
        waited = 0.0
        while True:
            number = self.position.delivered if self.in_order else next(iter(self.arrived), None)
            if number in self.arrived:
                return self.arrived.pop(number)
            if not self.coming:
                return None
            piece = None if self.timeout is None else min(_PIECE, self.timeout / 4, self.timeout - waited)
            if piece is not None and piece <= 0:
                raise self._timed_out()
            began = time.monotonic()
            try:
                arrivals = self.workers.arrivals.get(timeout=piece)
            except Empty:
                waited += piece or 0.0
                continue
            if piece is not None:
                waited += min(piece, time.monotonic() - began)
            if self.failure is not None:  # closed by another thread
                raise self.failure
            if self.waiting_for_first:
                self._first_arrived()
            for slot in arrivals:
                self._receive(slot)
            if not arrivals:  # woken because batches can be read ahead from now on
                self._top_up()

    def _receive(self, slot: Slot) -> None:
        self.coming.discard(slot)
        if slot.result is END:
            self.window -= 1
            self.more = False
        elif slot.number is None:  # a stream that could not even be opened
            raise slot.error or RuntimeError("a batch without a number")
        else:
            self.arrived[slot.number] = slot

    def _first_arrived(self) -> None:
        """Pool threads set torch to one thread each, which torch also takes as the default of threads that anybody
        starts later. Setting this thread's own number again mends the default and changes nothing else."""
        self.waiting_for_first = False
        torch.set_num_threads(torch.get_num_threads())

    def _timed_out(self) -> LoaderTimeout:
        """The error that names the batch waited for, and the sample that some thread has been reading the longest."""
        running = [c for slot in self.coming for c in slot.chunks if c.begun is not None and not c.ended]
        text = f"no batch came within timeout={self.timeout:g} s"
        if not running:
            return LoaderTimeout(f"{text}: no thread got to run; raise timeout or lower the machine's load")
        slowest = min(running, key=lambda chunk: chunk.sample_since)
        slot, seconds = slowest.slot, time.monotonic() - slowest.sample_since
        if slot.indices is None:
            return LoaderTimeout(f"{text}: the stream has not given batch {slot.number} for {seconds:.1f} s")
        if slowest.at is None:
            return LoaderTimeout(f"{text}: batch {slot.number} hangs in one of {several(slowest.keys())}")
        index = slowest.slot.keys()[slowest.at]  # type: ignore[index]
        where = f"{describe(self.workers.dataset, index)}, in batch {slot.number}"
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
        self.workers.arrivals.put([])  # wakes a consumer that waits in another thread


def _cancel(workers: Workers, pool: ThreadPoolExecutor | ConsumersThread) -> None:
    """Also the finaliser of an abandoned pass: it must not wait, and refers to nothing that refers to the pass."""
    workers.stop()
    pool.shutdown(wait=False, cancel_futures=True)


def join(name: str, seconds: float | None) -> None:
    """Wait until the threads of the passes called ``name`` have left, at most ``seconds``."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith(f"{name}_") and thread is not threading.current_thread():
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
