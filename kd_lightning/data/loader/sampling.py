"""Which samples an epoch visits, in which order, on which process: a function of (seed, epoch) and of nothing else.

No generator is carried from one epoch to the next, so that a run continued in epoch 7 sees what an uninterrupted one
would have seen, whatever the number of threads. Sharding over processes follows torch's ``DistributedSampler``: rank
``r`` of ``R`` takes every R-th position of the one common order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

from kd_lightning.errors import UserError

_MASK = (1 << 64) - 1


def order_seed(seed: int, epoch: int) -> int:
    """A 63-bit seed for one epoch's order: two rounds of the splitmix64 finaliser.

    A plain sum would give (seed 0, epoch 1) and (seed 1, epoch 0) the same order.
    """
    state = 0
    for word in (seed, epoch):
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def distributed_place(rank: int | None, num_replicas: int | None) -> tuple[int, int]:
    """(rank, number of processes): as given, otherwise torch.distributed's where it runs, otherwise (0, 1)."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    if num_replicas is None:
        num_replicas = torch.distributed.get_world_size() if running else 1
    if rank is None:
        rank = torch.distributed.get_rank() if running and num_replicas > 1 else 0
    return rank, num_replicas


class EpochSampler(Sampler[int]):
    """The order of one data set's samples, epoch by epoch, for one of several processes.

    Args:
        length: number of samples in the data set.
        shuffle: a new permutation each epoch; otherwise 0, 1, 2, …
        seed: >= 0; same seed, same orders.
        rank, num_replicas: this process and the number of processes; None asks torch.distributed when the order is
            needed.
        pad_shards: True repeats the first samples of the order until every process has equally many (training: all
            ranks must make the same number of steps); False leaves shards uneven and repeats none (evaluation).
        drop_last: with ``pad_shards``, cut the order to a multiple of the processes in place of repeating samples.
        base: a sampler of the user's own, whose order is used in place of ``shuffle``. What it draws from torch's
            global generator is seeded by (seed, epoch). One that shards by itself (has ``num_replicas``) is not
            sharded again.

    Attributes:
        epoch: the epoch whose order comes next; set it by :meth:`set_epoch`.
        used: True once a pass over ``epoch`` began, so that the next pass without ``set_epoch`` is the next epoch.
    """

    def __init__(
        self,
        length: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        num_replicas: int | None = None,
        pad_shards: bool = True,
        drop_last: bool = False,
        base: Iterable[int] | None = None,
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
        if hasattr(self.base, "set_epoch"):
            self.base.set_epoch(self.epoch)

    def advance(self) -> None:
        """Name the epoch of a pass that begins now: the one that was set, or the one after the last pass."""
        if self.used:
            self.set_epoch(self.epoch + 1)
        self.used = True

    def order(self, epoch: int) -> Tensor:
        """This process's sample positions in ``epoch``, in visiting order: int64 of shape (len(self),)."""
        whole = self._common_order(epoch)
        if hasattr(self.base, "num_replicas"):
            return whole
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

    def _common_order(self, epoch: int) -> Tensor:
        if self.base is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(order_seed(self.seed, epoch))
                return torch.as_tensor([int(i) for i in self.base], dtype=torch.int64)
        if self.shuffle:
            generator = torch.Generator().manual_seed(order_seed(self.seed, epoch))
            return torch.randperm(self.length, generator=generator)
        return torch.arange(self.length)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch).tolist())

    def __len__(self) -> int:
        """Samples this process visits in an epoch."""
        total = self.length
        if self.base is not None:
            if not isinstance(self.base, Sized):
                raise TypeError(f"the sampler {type(self.base).__name__} has no len(), so the loader has none either")
            total = len(self.base)
        if hasattr(self.base, "num_replicas"):
            return total
        rank, replicas = distributed_place(self.rank, self.num_replicas)
        if not self.pad_shards:
            return (total - rank + replicas - 1) // replicas
        return total // replicas if self.drop_last else -(-total // replicas)


class InOrderSampler(EpochSampler, SequentialSampler):
    """An EpochSampler that does not shuffle, of the type by which Lightning recognises that (``overfit_batches``)."""


def epoch_sampler(length: int, shuffle: bool, base: Iterable[int] | None, **rest) -> EpochSampler:
    """The sampler of a loader: see :class:`EpochSampler` for the arguments."""
    kind = EpochSampler if shuffle or base is not None else InOrderSampler
    return kind(length, shuffle=shuffle, base=base, **rest)
