"""What every way of reading a data set has in common, and what becomes of a batch that is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from kd_lightning.batch import Batch, Partner
from kd_lightning.data.loader.foreign import ForeignCode, Turn
from kd_lightning.data.loader.memory import joined, pinned
from kd_lightning.data.loader.reading_twice import require_equal
from kd_lightning.data.loader.tasks import Chunk, Slot, Workers
from kd_lightning.data.loader.wrappers import one_sample
from kd_lightning.data.samples import view_number
from kd_lightning.errors import UserError

END = object()


@dataclass
class Delivery:
    """What becomes of the samples of a pass, besides being read.

    Attributes:
        view, split: of the batches.
        as_batch: deliver :class:`~kd_lightning.batch.Batch`.
        pin: into pinned memory.
        collate: makes a batch of a list of samples.
        late: collate in the consumer's thread, one batch at a time (a function that does not say ``thread_safe``).
        reread: read every so-many-th position a second time and compare; 0: none.
        extra_views: the result has a third field, so many further inputs, which become the batch's ``also``.
        joined: the result is a batch in each of these views, which are put behind one another; empty: it is one batch.
    """

    view: int = 0
    split: str = ""
    as_batch: bool = False
    pin: bool = False
    collate: Callable[[list], Any] = default_collate
    late: bool = False
    reread: int = 0
    extra_views: int = 0
    joined: Sequence[int] = ()

    def batch(self, result: Sequence[Any], index: Tensor | None) -> Batch:
        """What a data set gave, ``(inputs, target)`` and perhaps further inputs or mixed samples' partners, as a batch."""
        if self.joined:
            samples = 0 if index is None else len(index)
            view = torch.tensor(self.joined).repeat_interleave(samples)
            return self._one(joined(list(result)), None if index is None else index.repeat(len(self.joined)), view)
        made = self._one(result, index, self.view)
        if not self.extra_views:
            return made
        views = (view_number(self.view, which) for which in range(1, self.extra_views + 1))
        also = (made._replace(inputs=inputs, view=view) for inputs, view in zip(result[2], views, strict=True))
        return made._replace(also=tuple(also))

    def _one(self, result: Sequence[Any], index: Tensor | None, view: int | Tensor) -> Batch:
        made = Batch(result[0], result[1], index, view, self.split)
        partner = result[2] if len(result) > 2 else None
        if not isinstance(partner, Partner):
            return made
        return made._replace(partner_target=partner.target, weight=partner.weight)


class Reader:
    """Reads chunks in pool threads. ``chunk``: samples a chunk; ``group``: batches a task; ``movable``: other threads
    may go on where some left."""

    movable = True

    def __init__(self, foreign: ForeignCode, delivery: Delivery, batch_size: int, num_threads: int) -> None:
        self.foreign, self.delivery, self.view, self.late = foreign, delivery, delivery.view, delivery.late
        self.chunk = batch_size
        self.group = 1
        self.window = max(3, num_threads + 1)  # batches to read ahead if the user does not say

    @staticmethod
    def threads(offered: int) -> int:
        """How many threads to use if the user does not say, of those that the machine offers this process."""
        return offered

    def prepare(self, dataset: Any, slot: Slot) -> None:
        """Runs in the consumer, before the batch's tasks are given to the pool."""

    def read_group(self, dataset: Any, slots: list[Slot]) -> None:
        """Runs once before the chunks of a task that has several batches are read."""

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        """Read the chunk; raise what the data set raises."""
        raise NotImplementedError

    def at_end(self, slot: Slot) -> bool:
        """Whether a stream's slot found nothing more to read."""
        return False

    def result(self, dataset: Any, slot: Slot) -> Any:
        """The finished batch, as the data set or the collate function makes it."""
        raise NotImplementedError

    def complete(self, dataset: Any, slot: Slot) -> Any:
        """The batch as the consumer gets it."""
        if self.at_end(slot):
            return END
        if self.late or not self.foreign.calm:
            result = self.foreign.seeded((slot.number or 0, 1), lambda: self.result(dataset, slot))
        else:
            result = self.result(dataset, slot)
        if self.delivery.as_batch:
            if not isinstance(result, (tuple, list)) or len(result) < 2:
                raise UserError(
                    f"as_batch=True needs samples of (inputs, target), the data set gave {type(result).__name__}"
                )
            index = slot.indices if isinstance(slot.indices, Tensor) else None
            result = self.delivery.batch(result, index)
        return pinned(result) if self.delivery.pin else result

    def read_again(self, dataset: Any, keys: list, turn: Turn, got: Callable[[int], Any] | None = None) -> None:
        """Compare every so-many-th sample with a second reading; ``got(k)`` is the first one, where that is at hand."""
        if self.delivery.reread:
            for k, key in enumerate(keys):
                if isinstance(key, int) and key % self.delivery.reread == 0:
                    read = partial(one_sample, dataset, key, self.view)
                    before = got(k) if got is not None else turn.sample(key, read)
                    require_equal(before, turn.sample(key, read), key)
