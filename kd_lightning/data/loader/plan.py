"""The batches of an epoch that are still to come, made as they are needed, and a trace of those that have been."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from kd_lightning.data.loader.state import Position
from kd_lightning.errors import UserError

Keys = Tensor | list


class Plan:
    """Numbers and keys of batches, in order, without those that ``position`` says were delivered.

    Args:
        batches: all of the epoch's, from its first.
        position: where the consumer is.
        trace: what :meth:`trace` said of the delivered ones when the position was saved; None: nothing is compared.
        traced: keep a trace: the order is a sampler's of the user's own, and nobody knows whether it comes again.
    """

    def __init__(self, batches: Iterator[Keys], position: Position, trace: str | None, traced: bool) -> None:
        self.skip, self.dropped, self.expected = position.delivered, frozenset(position.ahead), trace
        self._traces = [""] if traced else None
        self._coming = self._number(batches)

    def next(self) -> tuple[int, Keys] | None:
        """The next batch's number and keys; None at the end of the epoch.

        Raises:
            UserError: the batches before it are not those that were delivered before the position was saved.
        """
        return next(self._coming, None)

    def _number(self, batches: Iterator[Keys]) -> Iterator[tuple[int, Keys]]:
        if self.skip == 0:
            self._compare(0)
        for number, keys in enumerate(batches):
            if self._traces is not None:
                self._traces.append(_digest(self._traces[-1], keys))
            if number + 1 == self.skip:
                self._compare(self.skip)
            if number >= self.skip and number not in self.dropped:
                yield number, keys

    def _compare(self, delivered: int) -> None:
        if self.expected and self.trace(delivered) != self.expected:
            raise UserError(
                f"cannot continue in the middle of an epoch: the sampler gives another order than when the state was "
                f"saved, so some of the {delivered} batches that were read would come again and others never; give it "
                "a seed and a set_epoch(epoch), or start from the epoch's end"
            )

    def trace(self, delivered: int) -> str:
        """Hex digest of the keys of the first ``delivered`` batches; empty where none is kept."""
        return "" if self._traces is None or delivered >= len(self._traces) else self._traces[delivered]


def _digest(before: str, keys: Keys) -> str:
    content = keys.numpy().tobytes() if isinstance(keys, Tensor) else repr(keys).encode()
    return hashlib.blake2b(before.encode() + content, digest_size=8).hexdigest()
