"""The iterator that a ThreadedLoader hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kd_lightning.data.loader.one_pass import Pass

if TYPE_CHECKING:
    from kd_lightning.data.loader.threaded_loader import ThreadedLoader


class LoaderIterator:
    """An iterator over one epoch. Lightning makes iterators before it names the epoch: the pass begins at ``next``."""

    def __init__(self, loader: ThreadedLoader) -> None:
        self._loader: ThreadedLoader | None = loader
        self._pass: Pass | None = None

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Any:
        if torch.get_default_device().type != "cpu":  # the consumer's models may be made there, batches are not
            with torch.device("cpu"):
                return self._next()
        return self._next()

    def _next(self) -> Any:
        if self._loader is not None:
            self._pass, self._loader = self._loader._begin(), None
        assert self._pass is not None
        return self._pass.next()
