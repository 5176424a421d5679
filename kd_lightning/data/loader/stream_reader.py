"""Reading an iterable data set, which has no positions and belongs to the thread that opened it."""

from __future__ import annotations

import itertools
import time
from typing import Any

from kd_lightning.data.loader.foreign import ForeignCode
from kd_lightning.data.loader.reader import Delivery, Reader
from kd_lightning.data.loader.tasks import Chunk, Slot, Workers


class StreamReader(Reader):
    """An iterable data set: one thread opens and advances it. A continued pass reads and drops what was delivered
    before."""

    movable = False  # what it holds open belongs to its thread

    def __init__(
        self,
        foreign: ForeignCode,
        delivery: Delivery,
        batch_size: int,
        num_threads: int,
        skip: int,
        dropped: set[int],
        drop_last: bool,
    ) -> None:
        super().__init__(foreign, delivery, batch_size, num_threads)
        self.size, self.skip, self.dropped, self.drop_last = batch_size, skip, dropped, drop_last
        self.items: Any = None
        self.states: Any = None  # of the generators, where the stream draws from them
        self.number = skip
        self.ended = False

    @staticmethod
    def threads(offered: int) -> int:
        """What the stream holds (a connection, a file) may belong to the thread that opened it."""
        return 1

    def read(self, dataset: Any, chunk: Chunk, workers: Workers) -> None:
        slot = chunk.slot
        slot.buffers = []
        try:
            with self.foreign.turn() as turn:
                while not self.ended and not workers.stopped:
                    slot.number = self.number
                    chunk.sample_since = time.monotonic()
                    slot.buffers, self.states = turn.stream(self.states, lambda: self._take(dataset, workers))
                    self.number += 1
                    if slot.number not in self.dropped:
                        break
        except BaseException:
            self.ended = True  # a generator that raised is over, nobody shall read on behind the error
            raise

    def _take(self, dataset: Any, workers: Workers) -> list:
        """The stream's next batch of items; shorter or empty at its end."""
        if self.items is None:
            self.items = iter(dataset)
            for _ in itertools.islice(self.items, self.skip * self.size):
                if workers.stopped:
                    return []
        samples: list = []
        while len(samples) < self.size and not workers.stopped:
            try:
                samples.append(next(self.items))
            except StopIteration:
                self.ended = True
                return [] if self.drop_last else samples
        return samples

    def at_end(self, slot: Slot) -> bool:
        return not slot.buffers

    def result(self, dataset: Any, slot: Slot) -> Any:
        return self.delivery.collate(slot.buffers)
