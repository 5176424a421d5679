"""Loading batches with threads: the order of a run is exact, its end is clean, and no worker process is started."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate, default_convert

from kd_lightning.data.loader.arguments import check, translated
from kd_lightning.data.loader.choosing import choose_reader, is_stream
from kd_lightning.data.loader.errors import LoaderTimeout, SampleError
from kd_lightning.data.loader.foreign import ForeignCode, tell_once
from kd_lightning.data.loader.loader_iterator import LoaderIterator
from kd_lightning.data.loader.machine import default_threads
from kd_lightning.data.loader.one_pass import Pass, join
from kd_lightning.data.loader.plan import Plan
from kd_lightning.data.loader.reader import Delivery, Reader
from kd_lightning.data.loader.sampling import distributed_place, epoch_sampler
from kd_lightning.data.loader.state import Position, load_position, save_position
from kd_lightning.data.loader.stream_reader import StreamReader
from kd_lightning.data.loader.wrappers import thread_safe, with_views
from kd_lightning.data.repeats import RepeatedViews

__all__ = ["LoaderTimeout", "SampleError", "ThreadedLoader", "default_threads"]

_numbers = itertools.count()


class ThreadedLoader(DataLoader):
    """Batches of a data set, read ahead by a pool of threads; a ``DataLoader`` for whoever asks.

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
    loop is left by ``break`` or an exception, on Ctrl-C, and when the iterator is forgotten. A batch that cannot be read
    is an error in its place; whoever goes on gets the next one.

    What is delivered, and in which order, depends on the data set, ``seed`` and the epoch; never on ``num_threads``.
    Passes count epochs 0, 1, 2, … by themselves; :meth:`set_epoch` (which Lightning calls) says which one comes next.

    **Code that is not ours** is not assumed to bear threads. A data set that says ``thread_safe = True`` (a class
    attribute) or has ``per_thread`` is read ahead by ``num_threads`` threads, also inside Subset, ConcatDataset and
    StackDataset. Any other is read as by a DataLoader without workers: one sample at a time, while the consumer waits.
    Random numbers from torch's, numpy's and Python's own generators are seeded by (seed, view, position) for each
    sample and the generators are put back behind it; a data set that draws such numbers is read in that way whatever it
    says. ``collate_fn`` runs in the consumer's thread unless it says ``thread_safe = True``.

    Args:
        dataset: a map-style or iterable ``torch.utils.data`` data set, or anything with items. It is read faster if it
            has one of the methods below. One with ``set_epoch`` is told the epoch before each pass.
        batch_size: samples a batch, >= 1; None: samples as they are.
        shuffle: a new order each epoch.
        seed: of the order and of samples that draw random numbers, >= 0.
        drop_last: leave out the last batch if it is smaller.
        num_threads: None: what the machine offers, see :func:`default_threads`; half of it, at most 4, with ``gather``.
            0: read in the consumer's thread.
        prefetch: bound on the batches that are being read or wait to be delivered, >= 1. None: 3 and more than there
            are threads; with ``gather`` four groups of batches, at most some 32 MiB if that is more than 4 batches.
        order: ``"input"``, or ``"completion"``: whichever batch is ready first (each batch holds the same samples).
        timeout: seconds to wait for a batch before a LoaderTimeout names the sample that hangs. None: for ever.
        collate_fn: makes a batch of a list of samples; None: as DataLoader does.
        as_batch: yield :class:`kd_lightning.batch.Batch`; otherwise what a DataLoader yields, ``[inputs, target]``.
        split: the batches' ``split`` (with ``as_batch``): "train", "val" or "test".
        views: how many augmented views the data set has: the view asked for is ``epoch % views``, or ``epoch`` if 0.
        extra_views: the data set gives ``(inputs, target, further inputs)``, as many as this number says: they come as
            the batches' ``also`` (with ``as_batch``), see :class:`~kd_lightning.data.samples.SeveralViews`.
        sampler: an order of the user's own in place of ``shuffle`` (see
            :class:`~kd_lightning.data.loader.sampling.EpochSampler`).
        rank, num_replicas: this process among the processes that share the data; None: torch.distributed's, if it runs.
        pad_shards: all processes get equally many samples by repeating a few (training); False: none is repeated.
        pin_memory: None: where there is a CUDA device. True without one does nothing.
        batch_sampler: gives the positions of each batch, in place of batch_size, shuffle, sampler and drop_last.
        generator: ``seed`` is drawn from it, once.
        reread: for debugging: read every sample whose position is a multiple of this twice, and raise a SampleError
            where the readings differ (a race, or a generator of the data set's own). 0: none.
        dataloader: other arguments of DataLoader (``num_workers``, ``persistent_workers``, …): accepted, with a line
            that says what they mean here.

    A data set may offer, each optional:
        ``thread_safe = True``: several threads may read it at once, and its random numbers are functions of (seed,
        view, index), as those of :func:`kd_lightning.data.augment.uniforms` are.
        ``per_thread() -> data set``: a copy for one thread, if the data set cannot be read by several threads at once.
        ``gather(indices, view) -> (inputs, target)``: any number of samples at once, vectorised (data in memory). Each
        sample depends on its own index and on the view, not on the others: batches are gathered several at a time.
        Where samples are mixed, a :class:`~kd_lightning.batch.Partner` follows.
        ``allocate(n) -> buffers``, ``fill(buffers, start, indices, view, stop)``, ``finish(buffers, indices, view)
        -> (inputs, target)``: samples written from position ``start`` on into memory of the batch. ``fill`` calls
        ``stop()`` once before each sample and returns at once if that is True; in a data set that says
        ``thread_safe`` it runs in several threads at once, on disjoint positions.
        ``describe(index) -> str``: the sample's file, for error messages.

    Raises:
        SampleError: a sample could not be read; names its position and file, in the place of the batch it is in.
        LoaderTimeout: see ``timeout``.
    """

    # What those who ask a DataLoader want to know: there are no worker processes to be told of or to be warned about.
    _iterator = None
    multiprocessing_context = None
    worker_init_fn = None
    persistent_workers = True
    prefetch_factor = None
    pin_memory_device = ""

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
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
        extra_views: int = 0,
        sampler: Iterable | None = None,
        rank: int | None = None,
        num_replicas: int | None = None,
        pad_shards: bool = True,
        pin_memory: bool | None = None,
        batch_sampler: Iterable | None = None,
        generator: torch.Generator | None = None,
        reread: int = 0,
        **dataloader: Any,
    ) -> None:
        asked = translated(dataloader)
        num_threads = asked.get("num_threads") if num_threads is None else num_threads
        prefetch, order = asked.get("prefetch") if prefetch is None else prefetch, asked.get("order", order)
        check(
            dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_threads=num_threads,
            prefetch=prefetch, order=order, timeout=timeout, as_batch=as_batch, views=views, extra_views=extra_views,
            sampler=sampler, batch_sampler=batch_sampler, reread=reread,
        )  # fmt: skip
        if generator is not None:
            seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
        self.dataset, self.batch_sampler = dataset, batch_sampler
        self.batch_size = None if batch_sampler is not None else batch_size
        self.shuffle, self.seed, self.drop_last, self.generator = shuffle, seed, drop_last, None
        self.order, self.timeout, self.collate_fn, self.as_batch = order, timeout, collate_fn, as_batch
        self.split, self.views, self.extra_views = split, views, extra_views
        self.pin_memory, self.reread = pin_memory, reread
        self.rank, self.num_replicas, self.pad_shards = rank, num_replicas, pad_shards
        self.num_threads = self._reader().threads(default_threads()) if num_threads is None else num_threads
        self.prefetch = prefetch
        self.sampler = epoch_sampler(
            self._length(), shuffle, sampler if batch_sampler is None else batch_sampler, seed=seed, rank=rank,
            num_replicas=num_replicas, pad_shards=pad_shards, drop_last=drop_last,
        )  # fmt: skip
        self._start()

    def _start(self) -> None:
        """What belongs to this object and no copy of it."""
        self._name = f"kd-loader-{next(_numbers)}"
        self._position = Position()
        self._plan: Plan | None = None
        self._resume: Position | None = None
        self._generators: tuple[str, str] | None = None  # of a user's sampler: where it began the epoch, and is now
        self._passes: weakref.WeakSet[Pass] = weakref.WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins where this loader's consumer is; passes in progress stay here."""
        kept = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {"attributes": kept, "state": self.state_dict()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        vars(self).update(pickled["attributes"])
        self._start()
        self.load_state_dict(pickled["state"])

    @property
    def num_workers(self) -> int:
        """For those who ask a DataLoader: Lightning warns of fewer than two worker processes. Threads suffice."""
        return max(2, self.num_threads)

    @property
    def epoch(self) -> int:
        """The epoch of the pass that began last, or the one set for the next pass."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next pass goes over ``epoch``: from its first batch, or where a state loaded for it continues."""
        self.sampler.set_epoch(epoch)

    def _length(self) -> int | None:
        """Samples of the data set as it is now; None for a stream and where it does not tell."""
        if is_stream(self.dataset):
            return 0
        try:
            return len(self.dataset)
        except (TypeError, NotImplementedError):
            return None

    def __len__(self) -> int:
        """Batches in a whole epoch on this process; TypeError for an iterable data set without a length."""
        self.sampler.length = self._length()
        samples = len(self.dataset) if is_stream(self.dataset) else len(self.sampler)
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """An iterator over the next epoch. Nothing is read before its first ``next``."""
        return LoaderIterator(self)

    def _reader(self) -> type[Reader]:
        single = self.collate_fn is not None or (self.batch_size is None and self.batch_sampler is None)
        return choose_reader(with_views(self.dataset), single)

    def _begin(self) -> Pass:
        """Start the pass that is due now: choose its epoch, and start reading ahead."""
        resume, self._resume = self._pending(), None
        self.sampler.length = self._length()
        self.sampler.advance()
        epoch = self.sampler.epoch
        if self._generators is not None:
            self.sampler.load_generators(self._generators[0 if resume else 1])
        self._generators = self.sampler.generators(), ""
        self._position = position = resume or Position(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        view = epoch % self.views if self.views else epoch
        dataset, kind = with_views(self.dataset), self._reader()
        foreign = ForeignCode(dataset, self.seed, view)
        threads = self._threads(kind, foreign)
        size, unbatched = self.batch_size or 1, self.batch_size is None and self.batch_sampler is None
        delivery = Delivery(
            view, self.split, self.as_batch,
            pin=self.pin_memory is not False and torch.cuda.is_available(),
            collate=_Single(self.collate_fn or default_convert) if unbatched else self.collate_fn or default_collate,
            late=self.collate_fn is not None and not thread_safe(self.collate_fn),
            reread=self.reread, extra_views=self.extra_views, joined=_joined_views(self.dataset, view),
        )  # fmt: skip
        if issubclass(kind, StreamReader):
            plan = None
            rest = {"skip": position.delivered, "dropped": set(position.ahead), "drop_last": self.drop_last}
            reader: Reader = kind(foreign, delivery, size, max(1, threads), **rest)
        else:
            batches = self.sampler.batches(epoch, None if self.batch_sampler else size, self.drop_last)
            plan = Plan(batches, position, position.trace, traced=self.sampler.base is not None)
            reader = kind(foreign, delivery, size, max(1, threads))
        self._plan = plan
        started = Pass(
            dataset, reader, plan, position, threads, self.prefetch, self.order == "input", self.timeout, self._name
        )
        self._passes.add(started)
        return started

    def _threads(self, kind: type[Reader], foreign: ForeignCode) -> int:
        """How many threads read: one for a stream; none, the consumer's own, where no other may touch the data set,
        unless somebody is to wait for it no longer than ``timeout``."""
        if self.num_threads == 0 or (not foreign.parallel and self.timeout is None):
            threads = 0
        else:
            threads = 1 if issubclass(kind, StreamReader) or not foreign.parallel else self.num_threads
        if not foreign.parallel and self.num_threads > 0:
            tell_once(
                f"{foreign.name} is read one sample at a time while training waits, as by a DataLoader without "
                "workers; if threads may share it, say thread_safe = True in its class to have it read ahead"
            )
        return threads

    def _pending(self) -> Position | None:
        """The loaded position, if the epoch that comes next is still the one it was saved in."""
        resume = self._resume
        return resume if resume and not self.sampler.used and resume.epoch == self.sampler.epoch else None

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer is: the epoch and the batches it has got (what was read ahead does not count).

        A dict of integers, strings and lists of integers; the same on every rank of a distributed run.
        """
        if self.sampler.used:
            position = self._position
            position.trace = self._plan.trace(position.delivered) if self._plan is not None else ""
        else:
            position = self._pending() or Position(self.sampler.epoch)
        state = save_position(position, self._settings())
        if self.sampler.base is not None:
            began, now = self._generators or ("", "")
            state |= {"sampler_began": began, "sampler_now": now or self.sampler.generators()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue there: the next pass yields the batches of that epoch that were still to come.

        Raises:
            UserError: the state is of another data set length, batch size, seed or order, in the middle of an epoch.
        """
        position = load_position(state, self._settings())
        self.sampler.set_epoch(position.epoch)
        self._resume = position
        if self.sampler.base is not None:
            now = str(state.get("sampler_now", ""))
            self._generators = str(state.get("sampler_began", "")) or now, now

    def _settings(self) -> dict[str, int | str]:
        """What the order of samples and batches depends on, beside the epoch."""
        stream, sampler = is_stream(self.dataset), self.sampler
        return {
            "samples": -1 if stream or self._length() is None else self._length() or 0,
            "batch_size": self.batch_size or 0,
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


def _joined_views(dataset: Any, view: int) -> list[int]:
    return dataset.numbers(view) if isinstance(dataset, RepeatedViews) else []


class _Single:
    """Collates a batch of one sample by leaving it alone."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self.convert = convert

    def __call__(self, samples: list) -> Any:
        return self.convert(samples[0])
