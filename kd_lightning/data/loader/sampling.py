"""Which samples an epoch visits, in which order, on which process: a function of (seed, epoch) and of nothing else.

No generator is carried from one epoch to the next, so that a run continued in epoch 7 sees what an uninterrupted one
would have seen, whatever the number of threads. Sharding over processes follows torch's ``DistributedSampler``: rank
``r`` of ``R`` takes every R-th position of the one common order.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from kd_lightning.data.loader.generators import GENERATORS, GeneratorStates, mixed_seed
from kd_lightning.data.loader.sampler_state import load_generators, save_generators
from kd_lightning.errors import UserError


def distributed_place(rank: int | None, num_replicas: int | None) -> tuple[int, int]:
    """(rank, number of processes): as given, otherwise torch.distributed's where it runs, otherwise (0, 1)."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    if num_replicas is None:
        num_replicas = torch.distributed.get_world_size() if running else 1
    if rank is None:
        rank = torch.distributed.get_rank() if running and num_replicas > 1 else 0
    return rank, num_replicas


class EpochSampler(DistributedSampler):
    """The order of one data set's samples, epoch by epoch, for one of several processes.

    A DistributedSampler in what it does, and by type, so that Lightning and Fabric do not put another in its place.

    Args:
        length: number of samples in the data set; None where it has none and ``base`` says what to read.
        shuffle: a new permutation each epoch; otherwise 0, 1, 2, …
        seed: >= 0; same seed, same orders.
        rank, num_replicas: this process and the number of processes; None asks torch.distributed when the order is
            needed.
        pad_shards: True repeats the first samples of the order until every process has equally many (training: all
            ranks must make the same number of steps); False leaves shards uneven and repeats none (evaluation).
        drop_last: with ``pad_shards``, cut the order to a multiple of the processes in place of repeating samples.
        base: a sampler of the user's own, whose order is used in place of ``shuffle``: positions, or whatever else the
            data set's items are asked for by; or a batch sampler, which gives a list for each batch. It is asked as
            batches are needed, so it need not end. What it draws from the process's generators is seeded by
            (seed, epoch). One that shards by itself (has ``num_replicas``) is not sharded again.

    Attributes:
        epoch: the epoch whose order comes next; set it by :meth:`set_epoch`.
        used: True once a pass over ``epoch`` began, so that the next pass without ``set_epoch`` is the next epoch.
    """

    def __init__(
        self,
        length: int | None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        num_replicas: int | None = None,
        pad_shards: bool = True,
        drop_last: bool = False,
        base: Iterable | None = None,
    ) -> None:
        if seed < 0:
            raise UserError(f"seed must be >= 0, got {seed}")
        if num_replicas is not None and num_replicas < 1:
            raise UserError(f"num_replicas must be >= 1, got {num_replicas}")
        if rank is not None and not 0 <= rank < (num_replicas or rank + 1):
            raise UserError(f"rank must be in 0..num_replicas-1, got rank={rank}, num_replicas={num_replicas}")
        if base is not None and shuffle:
            raise UserError("give either shuffle=True or a sampler, not both: a sampler is an order by itself")
        self.length, self.shuffle, self.seed = length, shuffle, seed
        self.rank, self.num_replicas = rank, num_replicas
        self.pad_shards, self.drop_last, self.base = pad_shards, drop_last, base
        self.epoch, self.used = 0, False

    def set_epoch(self, epoch: int) -> None:
        """The next pass goes over this epoch, from its first batch."""
        self.epoch, self.used = int(epoch), False
        for sampler in (self.base, getattr(self.base, "sampler", None)):  # of a batch sampler, the one inside
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self.epoch)

    def advance(self) -> None:
        """Name the epoch of a pass that begins now: the one that was set, or the one after the last pass."""
        if self.used:
            self.set_epoch(self.epoch + 1)
        self.used = True

    def order(self, epoch: int) -> Tensor | list:
        """All that this process visits in ``epoch``, in order: positions, int64 (len(self),), or a list of other keys."""
        return self._positions(epoch) if self.base is None else keys_of(list(self._visits(epoch)))

    def batches(self, epoch: int, batch_size: int | None, drop_last: bool) -> Iterator[Tensor | list]:
        """The epoch's batches one after the other; ``batch_size`` None: ``base`` gives whole batches."""
        if self.base is None:
            assert batch_size is not None
            for batch in self._positions(epoch).split(batch_size):
                if len(batch) == batch_size or (len(batch) and not drop_last):
                    yield batch
        elif batch_size is None:
            yield from (keys_of(list(batch)) for blocks in self._asked(epoch, 1) for batch in blocks)
        else:
            for block in self._asked(epoch, batch_size):
                if len(block) == batch_size or not drop_last:
                    yield keys_of(block)

    def _asked(self, epoch: int, count: int) -> Iterator[list]:
        """What ``base`` gives this process in ``epoch``, ``count`` at a time; fewer at the end."""
        asked = _Asked(self.base or (), self.seed, epoch)
        rank, replicas = (
            (0, 1) if hasattr(self.base, "num_replicas") else distributed_place(self.rank, self.num_replicas)
        )
        head: list | None = None
        while block := asked.take(count * replicas):
            head = block[:replicas] if head is None else head
            over = len(block) % replicas
            if over and self.pad_shards:
                if self.drop_last:
                    block = block[:-over]
                else:
                    block += list(itertools.islice(itertools.cycle(head), replicas - over))
            if block[rank::replicas]:
                yield block[rank::replicas]

    def _positions(self, epoch: int) -> Tensor:
        if self.length is None:
            raise UserError("the data set has no len(): give the loader a sampler that says what to read")
        if self.shuffle:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
            whole = torch.randperm(self.length, generator=generator, device="cpu")
        else:
            whole = torch.arange(self.length, device="cpu")
        rank, replicas = distributed_place(self.rank, self.num_replicas)
        if replicas == 1:
            return whole
        if self.pad_shards and len(whole) % replicas:
            if self.drop_last:
                whole = whole[: len(whole) - len(whole) % replicas]
            else:
                missing = replicas - len(whole) % replicas
                # A data set smaller than the number of processes is repeated as often as it takes.
                whole = torch.cat([whole, whole.repeat(-(-missing // len(whole)))[:missing]])
        return whole[rank::replicas].contiguous()

    def _visits(self, epoch: int) -> Iterator[Any]:
        return (key for block in self._asked(epoch, 64) for key in block)

    def generators(self) -> str:
        """The states of generators that ``base`` keeps to itself; empty if there is none."""
        return save_generators(self.base)

    def load_generators(self, saved: str) -> None:
        """Put them where they were."""
        load_generators(self.base, saved)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._positions(self.epoch).tolist()) if self.base is None else self._visits(self.epoch)

    def __len__(self) -> int:
        """Samples (with a batch sampler: batches) that this process visits in an epoch."""
        total = self.length
        if self.base is not None:
            try:
                total = len(self.base)  # type: ignore[arg-type]
            except TypeError:
                total = None
        if total is None:
            name = "data set" if self.base is None else f"sampler {type(self.base).__name__}"
            raise TypeError(f"the {name} has no len(), so the loader has none either")
        if hasattr(self.base, "num_replicas"):
            return total
        rank, replicas = distributed_place(self.rank, self.num_replicas)
        if not self.pad_shards:
            return (total - rank + replicas - 1) // replicas
        return total // replicas if self.drop_last else -(-total // replicas)


class _Asked:
    """A user's sampler, asked as keys are needed. What it draws from the process's generators goes on from one call to
    the next and is nobody else's."""

    closed = False

    def __init__(self, base: Iterable, seed: int, epoch: int) -> None:
        self.base, self.words = base, (seed, epoch)
        self.items: Iterator | None = None
        self.states: GeneratorStates | None = None

    def take(self, count: int) -> list:
        """The next ``count`` keys; fewer at the end."""
        with GENERATORS.lent(self) as loan:
            assert loan is not None
            if self.items is None or self.states is None:
                loan.seed(*self.words)
                self.items = iter(self.base)
            else:
                loan.resume(self.states)
            taken = list(itertools.islice(self.items, count))
            self.states = GeneratorStates()
        return taken


def keys_of(keys: list) -> Tensor | list:
    """Keys as positions (int64) where all are whole numbers, otherwise as they are."""
    try:
        return torch.tensor([operator.index(key) for key in keys], dtype=torch.int64, device="cpu")
    except TypeError:
        return keys


class InOrderSampler(EpochSampler, SequentialSampler):
    """An EpochSampler that does not shuffle, of the type by which Lightning recognises that (``overfit_batches``)."""


def epoch_sampler(length: int | None, shuffle: bool, base: Iterable | None, **rest: Any) -> EpochSampler:
    """The sampler of a loader: see :class:`EpochSampler` for the arguments."""
    kind = EpochSampler if shuffle or base is not None else InOrderSampler
    return kind(length, shuffle=shuffle, base=base, **rest)
