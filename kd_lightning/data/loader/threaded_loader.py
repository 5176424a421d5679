"""Loading batches with threads: the order of a run is exact, its end is clean, and no worker process is started."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from kd_lightning.data.loader.errors import LoaderTimeout, SampleError
from kd_lightning.data.loader.one_pass import Pass, Position, join
from kd_lightning.data.loader.readers import StreamReader, choose_reader, is_stream
from kd_lightning.data.loader.sampling import distributed_place, epoch_sampler
from kd_lightning.data.loader.state import load_position, save_position
from kd_lightning.errors import UserError

__all__ = ["LoaderTimeout", "SampleError", "ThreadedLoader", "default_threads"]

_MOST_THREADS = 16
_numbers = itertools.count()


def default_threads() -> int:
    """Threads for this process: the CPUs it may run on, divided among the processes of a distributed run on this
    machine (``LOCAL_WORLD_SIZE``), at most 16."""
    if hasattr(os, "process_cpu_count"):
        cpus = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, cpus // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))


class ThreadedLoader:
    """Batches of a data set, read ahead by a pool of threads; stands in place of a ``DataLoader``.

    ::

         consumer                                        pool: num_threads threads
        ┌──────────────────────────────┐   chunks of    ┌────────────────────────────────────────────┐
        │ order(seed, epoch) ─► batches├───batches─────►│ read sample, sample, …  ─► into the batch  │
        │   window: <= prefetch batches│                │ read sample, sample, …  ─► into the batch  │
        │                              │   finished     │ whose chunk ends last: collate, normalise  │
        │ next() ◄─ in order ◄─────────┼◄──batches──────┤ (an exception travels as the batch's error)│
        └──────────────────────────────┘                └────────────────────────────────────────────┘
          counts what it delivered: state_dict()           stops at the next sample once the pass ended

    The threads live as long as a pass over an epoch: they start at its first ``next`` and leave at its end, when the
    loop is left by ``break`` or an exception, on Ctrl-C, and when the iterator is forgotten.

    What is delivered, and in which order, depends on the data set, ``seed`` and the epoch; never on ``num_threads``.
    Passes count epochs 0, 1, 2, … by themselves; :meth:`set_epoch` (which Lightning calls) says which one comes next.

    Args:
        dataset: a map-style or iterable ``torch.utils.data`` data set. It is read faster if it has one of the methods
            below. A data set with ``set_epoch`` is told the epoch before each pass.
        batch_size: samples a batch, >= 1.
        shuffle: a new order each epoch.
        seed: of the order, >= 0.
        drop_last: leave out the last batch if it is smaller.
        num_threads: None: what the machine offers, see :func:`default_threads`; half of it, at most 4, with ``gather``.
        prefetch: bound on the batches that are being read or wait to be delivered, >= 1. None: 3 and more than there
            are threads; with ``gather`` four groups of batches, at most some 32 MiB if that is more than 4 batches.
        order: ``"input"``, or ``"completion"``: whichever batch is ready first (each batch holds the same samples).
        timeout: seconds to wait for a batch before a LoaderTimeout names the sample that hangs. None: for ever.
        collate_fn: makes a batch of a list of samples; None: as DataLoader does.
        as_batch: yield :class:`kd_lightning.batch.Batch`; otherwise what a DataLoader yields, ``[inputs, target]``.
        split: the batches' ``split`` (with ``as_batch``): "train", "val" or "test".
        views: how many augmented views the data set has: the view asked for is ``epoch % views``, or ``epoch`` if 0.
        sampler: an order of the user's own in place of ``shuffle`` (see :class:`EpochSampler`).
        rank, num_replicas: this process among the processes that share the data; None: torch.distributed's, if it runs.
        pad_shards: all processes get equally many samples by repeating a few (training); False: none is repeated.
        pin_memory: None: where there is a CUDA device.

    A data set may offer, each optional:
        ``gather(indices, view) -> (inputs, target)``: any number of samples at once, vectorised (data in memory). Each
        sample depends on its own index and on the view, not on the others: batches are gathered several at a time.
        ``allocate(n) -> buffers``, ``fill(buffers, start, indices, view, stop)``, ``finish(buffers, indices, view)
        -> (inputs, target)``: samples written from position ``start`` on into memory of the batch. ``fill`` runs in
        several threads at once, on disjoint positions; it calls ``stop()`` once before each sample and returns at once
        if that is True.
        ``describe(index) -> str``: the sample's file, for error messages.
        ``per_thread() -> data set``: a copy for one thread, if the data set cannot be read by several threads at once.

    Raises:
        SampleError: a sample could not be read; names its position and file, in the place of the batch it is in.
        LoaderTimeout: see ``timeout``.
    """

    batch_sampler = None  # Lightning looks for it

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        num_threads: int | None = None,
        prefetch: int | None = None,
        order: str = "input",
        timeout: float | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        as_batch: bool = False,
        split: str = "",
        views: int = 0,
        sampler: Iterable[int] | None = None,
        rank: int | None = None,
        num_replicas: int | None = None,
        pad_shards: bool = True,
        pin_memory: bool | None = None,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_threads", num_threads, 1),
            ("prefetch", prefetch, 1),
            ("views", views, 0),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"{name} must be an integer >= {least}, got {value!r}")
        if order not in ("input", "completion"):
            raise UserError(f'order must be "input" or "completion", got {order!r}')
        if timeout is not None and not timeout > 0:
            raise UserError(f"timeout must be > 0 seconds or None, got {timeout!r}")
        if is_stream(dataset) and (shuffle or sampler is not None):
            raise UserError(
                "an iterable data set has its own order: shuffle there, and remove shuffle and sampler here"
            )
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.order, self.timeout, self.collate_fn, self.as_batch = order, timeout, collate_fn, as_batch
        self.split, self.views, self.pin_memory = split, views, pin_memory
        self.reader = choose_reader(dataset, collate_fn)
        self.num_threads = num_threads or self.reader.threads(default_threads())
        self.prefetch = prefetch
        length = 0 if is_stream(dataset) else len(dataset)
        self.sampler = epoch_sampler(
            length, shuffle, sampler, seed=seed, rank=rank, num_replicas=num_replicas, pad_shards=pad_shards,
            drop_last=drop_last,
        )  # fmt: skip
        self._name = f"kd-loader-{next(_numbers)}"
        self._position = Position()
        self._resume: Position | None = None
        self._passes: weakref.WeakSet[Pass] = weakref.WeakSet()

    @property
    def epoch(self) -> int:
        """The epoch of the pass that began last, or the one set for the next pass."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next pass goes over ``epoch``: from its first batch, or where a state loaded for it continues."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches in a whole epoch on this process; TypeError for an iterable data set without a length."""
        samples = len(self.dataset) if is_stream(self.dataset) else len(self.sampler)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """An iterator over the next epoch. Nothing is read before its first ``next``."""
        return LoaderIterator(self)

    def _begin(self) -> Pass:
        """Start the pass that is due now: choose its epoch, and start reading ahead."""
        resume, self._resume = self._pending(), None
        self.sampler.advance()
        epoch = self.sampler.epoch
        self._position = position = resume or Position(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        options: dict[str, Any] = {
            "view": epoch % self.views if self.views else epoch,
            "split": self.split,
            "as_batch": self.as_batch,
            "pin": torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
            "collate": self.collate_fn,
        }
        order = total = None
        if self.reader is StreamReader:
            options |= {"skip": position.delivered, "dropped": set(position.ahead), "drop_last": self.drop_last}
        else:
            order = self.sampler.order(epoch)
            total = len(order) // self.batch_size if self.drop_last else -(-len(order) // self.batch_size)
        started = Pass(
            self.dataset, self.reader(self.batch_size, self.num_threads, **options), order, total, position,
            self.batch_size, self.num_threads, self.prefetch, self.order == "input", self.timeout, self._name,
        )  # fmt: skip
        self._passes.add(started)
        return started

    def _pending(self) -> Position | None:
        """The loaded position, if the epoch that comes next is still the one it was saved in."""
        resume = self._resume
        return resume if resume and not self.sampler.used and resume.epoch == self.sampler.epoch else None

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is: the epoch and the batches it has got (what was read ahead does not count).

        A dict of integers, strings and lists of integers; the same on every rank of a distributed run.
        """
        if self.sampler.used:
            return save_position(self._position, self._settings())
        return save_position(self._pending() or Position(self.sampler.epoch), self._settings())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue there: the next pass yields the batches of that epoch that were still to come.

        Raises:
            UserError: the state is of another data set length, batch size, seed or order, in the middle of an epoch.
        """
        position = load_position(state, self._settings())
        self.sampler.set_epoch(position.epoch)
        self._resume = position

    def _settings(self) -> dict[str, int | str]:
        """What the order of samples and batches depends on, beside the epoch."""
        stream, sampler = is_stream(self.dataset), self.sampler
        return {
            "samples": -1 if stream else len(self.dataset),
            "batch_size": self.batch_size,
            "seed": sampler.seed,
            "shuffle": int(sampler.shuffle),
            "sampler": type(sampler.base).__name__ if sampler.base is not None else "",
            "drop_last": int(self.drop_last),
            "processes": distributed_place(sampler.rank, sampler.num_replicas)[1],
            "pad_shards": int(sampler.pad_shards),
        }

    def close(self) -> None:
        """End the passes in progress and wait until their threads have left (samples being read are read to their end,
        for which ``timeout`` seconds are waited at most). The loader can be iterated again; its iterators cannot."""
        for running in list(self._passes):
            if not running.finished and running.failure is None:
                running.fail(RuntimeError("the loader was closed while this iterator was in use"))
        join(self._name, self.timeout)

    def __enter__(self) -> ThreadedLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LoaderIterator:
    """An iterator over one epoch. Lightning makes iterators before it names the epoch: the pass begins at ``next``."""

    def __init__(self, loader: ThreadedLoader) -> None:
        self._loader: ThreadedLoader | None = loader
        self._pass: Pass | None = None

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Any:
        if self._pass is None:
            self._pass, self._loader = self._loader._begin(), None
        return self._pass.next()
