"""Several views of a picture in one batch, as samples of their own: batch augmentation (Hoffer et al. 2020, CVPR,
arXiv:1901.09335), repeated augmentation (Berman et al. 2019, arXiv:1902.05509).

In epoch e, of R repeats, a batch of B holds B / R samples in view R e, the same ones in view R e + 1, and so on: views are
counted on, so that each is a function of (seed, view, index) as any other, and a cache holds each once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kd_lightning.data.loader.wrappers import gathers
from kd_lightning.data.samples import Seeded, SeveralViews


class RepeatedViews(SeveralViews):
    """Each sample in ``repeats`` views, which a loader puts behind one another: see :meth:`numbers`.

    Args:
        dataset: with ``gather``, or ``allocate``, ``fill`` and ``finish``; where it has ``fill_views`` a file is read once for
            all views.
        repeats: R, >= 2.
        views: how many views are cycled through; 0: as many as there are.
        seeded: as of :class:`~kd_lightning.data.samples.SeveralViews`.
    """

    def __init__(self, dataset: Any, repeats: int, views: int, seeded: Seeded | None = None) -> None:
        super().__init__(dataset, repeats - 1, seeded)
        self.views = views

    def number(self, view: int, which: int) -> int:
        """The number of a view; ``view`` is the epoch."""
        number = view * (1 + self.extra) + which
        return number % self.views if self.views else number

    def fill(self, buffers: Sequence[Any], start: int, indices: Tensor, view: int, stop: Callable[[], bool]) -> None:
        """Read every view of some samples."""
        together = getattr(self.dataset, "fill_views", None)
        if together is None or self.seeded is not None:
            super().fill(buffers, start, indices, view, stop)
        else:
            together(buffers, start, indices, self.numbers(view), stop)

    def finish(self, buffers: Sequence[Any], indices: Tensor, view: int) -> Any:
        """The batch in each view."""
        return tuple(
            self.dataset.finish(places, indices, number)
            for places, number in zip(buffers, self.numbers(view), strict=True)
        )


class RepeatedGatheredViews(RepeatedViews):
    """The same for a data set with ``gather``."""

    def gather(self, indices: Tensor, view: int) -> Any:
        """One batch in each view."""
        return tuple(self.dataset.gather(indices, number) for number in self.numbers(view))


def repeated_views(dataset: Any, repeats: int, views: int, seeded: Seeded | None = None) -> RepeatedViews:
    """:class:`RepeatedViews`, in whole batches where the data set gathers them and draws nothing itself."""
    kind = RepeatedGatheredViews if seeded is None and gathers(dataset) else RepeatedViews
    return kind(dataset, repeats, views, seeded)
