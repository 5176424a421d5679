"""How code that is not ours is called: one sample at a time, with random numbers that belong to that sample.

What a user's data set does is not known: it may share a file handle, keep its last draw in itself, draw from torch's,
numpy's or Python's generator. By default it is treated as a ``DataLoader`` without workers treats it: one sample at a
time, while training waits for the batch. Around each sample the process's generators are seeded by (seed, view,
position), so that a sample is the same in every run, after a resume, and when it is read again.

A data set that says ``thread_safe = True`` is read ahead by several threads. That leaves nobody's generator alone, so
its first sample is watched: if it draws, the others are seeded and read one at a time as well.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from kd_lightning.data.loader.generators import GENERATORS, GeneratorStates, Loan
from kd_lightning.data.loader.wrappers import draws_nothing, inside, thread_safe

_log = logging.getLogger(__name__)
_told: set[str] = set()
T = TypeVar("T")


class ForeignCode:
    """One pass's dealings with a data set.

    Args:
        dataset: what is read.
        seed, view: of the pass; with a sample's position they are the seed of its random numbers.

    Attributes:
        calm: nothing has to be seeded or waited for: ours, or it says that threads may share it and draws nothing.
        drew: it was seen to draw.
        closed: the pass has ended; no sample is begun any more.
        calmed: called when it becomes calm.
    """

    def __init__(self, dataset: Any, seed: int, view: int) -> None:
        self.name, self.seed, self.view = foreign_name(dataset), seed, view
        self.parallel = thread_safe(dataset)
        self.calm = self.parallel and draws_nothing(dataset)
        self.drew = self.closed = False
        self.calmed: Callable[[], object] = lambda: None

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """The right to read some samples; waited for, unless the data set is calm."""
        with ExitStack() as stack:
            loan = None if self.calm else stack.enter_context(GENERATORS.lent(self))
            if self.closed:
                raise RuntimeError("the pass has ended")
            if self.calm:  # it showed while this thread waited
                stack.close()
                loan = None
            yield Turn(self, loan, stack)

    def seeded(self, words: tuple[int, ...], call: Callable[[], T]) -> T:
        """What ``call`` returns, with the generators lent to it and seeded by the pass and ``words``."""
        with GENERATORS.lent(self) as loan:
            if loan is None:
                raise RuntimeError("the pass has ended")
            loan.seed(self.seed, self.view, *words)
            return call()

    def close(self) -> None:
        """The pass has ended: nothing is begun any more, and what hangs has no hold on the generators."""
        self.closed = True
        if not self.calm:
            GENERATORS.take_back(self)

    def settle(self, drew: bool) -> None:
        """What the watched call showed."""
        if drew:
            self.drew = True
            if self.parallel:
                tell_once(
                    f"{self.name} says thread_safe = True and draws from a generator of the whole process: its samples "
                    "are seeded and read one at a time, while training waits; to have them read ahead by threads, draw "
                    "from kd_lightning.data.augment.uniforms(seed, view, index)"
                )
        elif self.parallel:
            self.calm = True
            self.calmed()


class Turn:
    """Reads samples: under a loan of the generators, or, for a calm data set, as they are."""

    def __init__(self, foreign: ForeignCode, loan: Loan | None, stack: ExitStack) -> None:
        self.foreign, self._loan, self._stack = foreign, loan, stack

    def sample(self, key: Any, read: Callable[[], T]) -> T:
        """What ``read`` returns for the sample at position ``key``."""
        return self._call(key, read, watch=self.foreign.parallel and not self.foreign.drew)

    def whole(self, key: Any, read: Callable[[], T]) -> tuple[T, bool]:
        """What ``read`` returns for many samples, of which ``key`` is the first, and whether it drew."""
        result = self._call(key, read, watch=True)
        return result, self.foreign.drew

    def stream(self, states: GeneratorStates | None, read: Callable[[], T]) -> tuple[T, GeneratorStates | None]:
        """What ``read`` returns from an iterator that continues from ``states``, and where that leaves it."""
        if self._loan is None:
            return read(), None
        if states is None:
            result = self._call(0, read, watch=True)
        else:
            self._loan.resume(states)
            result = read()
        return result, GeneratorStates() if self._loan is not None else None

    def _call(self, key: Any, read: Callable[[], T], watch: bool) -> T:
        loan, foreign = self._loan, self.foreign
        if loan is None:
            return read()
        loan.seed(foreign.seed, foreign.view, key_number(key), watch=watch)
        result = read()
        if watch:
            foreign.settle(loan.drew())
            if foreign.calm:
                self._loan = None
                self._stack.close()
        return result


def foreign_name(dataset: Any) -> str:
    """The class of the first data set inside that says nothing of threads, or of the data set."""
    for held in inside(dataset) or ():
        if not thread_safe(held) or not draws_nothing(held):
            return foreign_name(held)
    return getattr(dataset, "__name__", type(dataset).__name__)


def key_number(key: Any) -> int:
    """A position as it is, any other key as a number made of its text."""
    if isinstance(key, int):
        return key
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def tell_once(text: str, level: int = logging.INFO) -> None:
    """Log a line that a user should know, once in a process: several data modules of one run find the same."""
    if text not in _told:
        _told.add(text)
        _log.log(level, "%s", text)


def draws(dataset: Any, key: Any) -> bool:
    """Whether an item of a data set takes numbers from the process's own generators."""
    if draws_nothing(dataset):
        return False
    foreign = ForeignCode(dataset, 0, 0)
    foreign.calm = False
    with foreign.turn() as turn:
        return turn.whole(key, lambda: dataset[key])[1]
