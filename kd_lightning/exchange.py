"""Data-parallel training: every process computes the loss of the whole batch, from the answers of all of them.

::

    process 0:  its samples ─► student ─► answers ─┐                ┌─► loss of all samples ─► gradient of its own
    process 1:  its samples ─► student ─► answers ─┴─ all_gather ───┴─► loss of all samples ─► gradient of its own

The networks run on each process's share, the loss on everything. So terms that compare samples with one another
(relations, contrast, correlations), means over the labelled samples only, memory banks and moving averages see what one
process with the whole batch would see, in the same order, and stay the same everywhere without being told.

The gradient: DDP takes the mean over W processes. A parameter of the loss itself (an adapter) has its whole gradient in
each of them. A parameter of the student has that of the process's own samples only, so these are multiplied by W.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.outputs import ModelOutput
from kd_lightning.rng import RngStream


class Exchange:
    """What one of several processes does to see the whole batch.

    Args:
        rank: of this process.
        world: number of processes, > 1; torch.distributed runs.
        device: on which they exchange tensors.
    """

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device
        self.at(0, 0)

    def sizes(self, batch: Batch) -> list[int]:
        """Samples of the batch that each process has."""
        own = torch.tensor([batch.size], device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world)]
        torch.distributed.all_gather(found, own)
        return [int(size) for size in torch.cat(found).tolist()]

    def output(self, output: ModelOutput, sizes: Sequence[int]) -> ModelOutput:
        """A model's answers for the samples of all processes."""
        return replace(output, **{f.name: self.whole(getattr(output, f.name), sizes) for f in fields(output)})

    def batch(self, batch: Batch, sizes: Sequence[int], inputs: bool) -> Batch:
        """The whole batch; its inputs (and further views) only if somebody looks at them."""
        rows = {
            name: self.whole(getattr(batch, name), sizes)
            for name in ("target", "index", "view", "partner_target", "weight")
        }
        batch = batch._replace(**rows)
        if not inputs:
            return batch
        also = tuple(self.batch(view, sizes, inputs) for view in batch.also)
        return batch._replace(inputs=self.whole(batch.inputs, sizes), also=also)

    def whole(self, value: Any, sizes: Sequence[int]) -> Any:
        """A structure of tensors with one row a sample, from all processes; gradients reach this one's rows."""
        if isinstance(value, Tensor):
            return _Gathered.apply(value, tuple(sizes), self.rank) if value.dim() else value
        if isinstance(value, Mapping):
            return {key: self.whole(item, sizes) for key, item in value.items()}
        if isinstance(value, list) and any(not isinstance(item, (Tensor, Mapping, list, tuple)) for item in value):
            found: list[Any] = [None] * self.world
            torch.distributed.all_gather_object(found, value)
            return [found[process][row] for row, process in _order(tuple(sizes))]
        if isinstance(value, (list, tuple)):
            return type(value)(self.whole(item, sizes) for item in value)
        return value

    def at(self, epoch: int, batch: int) -> None:
        """Where the run stands: what the random numbers of the forward passes are a function of."""
        self._moment, self._forwards = (epoch, batch), 0

    def forward_stream(self, seed: int) -> RngStream:
        """Random numbers for one forward pass of the student: no two processes drop out the same units.

        Nothing is drawn from the member's own stream, which stays the same everywhere, for the loss.
        """
        self._forwards += 1
        words = (*self._moment, self._forwards, self.rank)
        number = seed
        for word in words:
            number = (number * 6364136223846793005 + word + 1) % (1 << 63)
        return RngStream(number)

    def same_buffers(self, tensors: Iterable[Tensor]) -> None:
        """Take over process 0's: running statistics are of each process's own samples until then."""
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)

    def any_of(self, here: bool) -> bool:
        """Whether it is so in some process; the same answer in all of them."""
        flag = torch.tensor([int(here)], device=self.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


class _Gathered(torch.autograd.Function):
    """Rows of all processes in the data's order; the gradient of this process's rows, times the number of processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        longest = max(sizes)
        padded = tensor.detach().contiguous()
        if len(padded) < longest:
            padded = torch.cat([padded, padded.new_zeros(longest - len(padded), *padded.shape[1:])])
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        parts[rank] = padded  # its own, as it is
        rows = torch.stack(parts, dim=1).flatten(0, 1)
        return rows if min(sizes) == longest else rows[_real_rows(sizes, rows.device)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        places = [process for _, process in _order(ctx.sizes)]
        own = torch.tensor([i for i, process in enumerate(places) if process == ctx.rank], device=gradients[0].device)
        return gradients[0][own] * len(ctx.sizes), None, None


@lru_cache(maxsize=8)
def _order(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(row, process) of all samples as one process would have them: samples are dealt out in turn."""
    return [(row, process) for row in range(max(sizes)) for process, size in enumerate(sizes) if row < size]


def _real_rows(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([row * len(sizes) + process for row, process in _order(sizes)], device=device)
