"""The process's own generators of random numbers, lent to code that draws from them and put back as they were.

``torch.rand``, ``numpy.random.rand`` and ``random.random`` draw from one generator each for the whole process. A data
set that uses them gets them for the time of a sample, seeded by that sample; whoever trains meanwhile waits for the
batch, and finds its generators where it left them. So only one loan exists at a time, in any thread.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch

_MASK = (1 << 64) - 1


def mixed_seed(*words: int) -> int:
    """A 63-bit seed of some integers: a round of the splitmix64 finaliser for each.

    A plain sum would give (seed 0, epoch 1) and (seed 1, epoch 0) the same numbers.
    """
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Borrower(Protocol):
    """Who asks for a loan. ``closed``: its loan was taken back, and it gets no other."""

    closed: bool


class GeneratorStates:
    """Where the three generators stand."""

    def __init__(self) -> None:
        self.torch = torch.default_generator.get_state()
        self.numpy = np.random.get_state(legacy=False)
        self.python = random.getstate()

    def restore(self) -> None:
        """Put them back there."""
        torch.default_generator.set_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GeneratorStates):
            return NotImplemented
        mine, theirs = self.numpy["state"], other.numpy["state"]  # type: ignore[index]
        return (
            self.python == other.python
            and mine["pos"] == theirs["pos"]
            and self.numpy["has_gauss"] == other.numpy["has_gauss"]  # type: ignore[index]
            and bool((mine["key"] == theirs["key"]).all())
            and torch.equal(self.torch, other.torch)
        )

    __hash__ = None  # type: ignore[assignment]


class Loan:
    """The generators in the hands of ``borrower``, who seeds them before each sample."""

    def __init__(self, generators: GlobalGenerators, borrower: Borrower, within: Loan | None) -> None:
        self._generators, self.borrower, self.within = generators, borrower, within
        self.thread = threading.get_ident()
        self.before = GeneratorStates()
        self._seeded: GeneratorStates | None = None

    def seed(self, *words: int, watch: bool = False) -> None:
        """Seed all three; ``watch`` remembers where that left them, for :meth:`drew`."""
        if not self._generators.holds(self):  # taken back: whoever has them now must not notice
            return
        seed = mixed_seed(*words)
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        self._seeded = GeneratorStates() if watch else None

    def resume(self, states: GeneratorStates) -> None:
        """Go on where somebody's own loan ended."""
        if self._generators.holds(self):
            states.restore()

    def drew(self) -> bool:
        """Whether a number was drawn since the watched seeding."""
        return self._seeded is not None and self._generators.holds(self) and GeneratorStates() != self._seeded


class GlobalGenerators:
    """Lends the process's generators to one borrower at a time.

    Locks: ``_free`` is held as long as a loan lasts, while foreign code runs; ``_change`` for a few lines of ours, and
    nothing is waited for under it.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._change = threading.RLock()  # a finaliser may run, and take a loan back, at any line of ours
        self._loan: Loan | None = None

    @contextmanager
    def lent(self, borrower: Borrower) -> Iterator[Loan | None]:
        """A loan; None for a borrower whose loan was taken back (:meth:`take_back`), who has nothing to do any more."""
        current = self._loan
        nested = current is not None and current.thread == threading.get_ident()  # a data set that reads another
        if not nested:
            self._free.acquire()
        with self._change:
            if borrower.closed:
                if not nested:
                    self._free.release()
                loan = None
            else:
                loan = self._loan = Loan(self, borrower, current if nested else None)
        try:
            yield loan
        finally:
            if loan is not None:
                self._end(loan)

    def holds(self, loan: Loan) -> bool:
        """Whether the loan lasts."""
        return self._loan is loan

    def take_back(self, borrower: Borrower) -> None:
        """Close a borrower that may hang, in whatever thread, and end its loan: the generators are put back at once."""
        with self._change:
            borrower.closed = True
            loan = self._loan
            while loan is not None and loan.within is not None:
                loan = loan.within
            if loan is None or loan.borrower is not borrower:
                return
            self._loan = None
            loan.before.restore()
            self._free.release()

    def _end(self, loan: Loan) -> None:
        with self._change:
            if self._loan is not loan:
                return
            self._loan = loan.within
            loan.before.restore()
            if loan.within is None:
                self._free.release()


GENERATORS = GlobalGenerators()
