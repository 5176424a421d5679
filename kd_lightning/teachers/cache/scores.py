"""A thousand classes in a hundred bytes: each sample's scores on the answers' principal axes, and its largest logits.

What a teacher finds similar it finds similar in every picture, so its answers to C classes lie near a subspace of far fewer
dimensions. Of a sample are stored 64 scores on the principal axes of its logits (less their mean over classes), a byte
each, and its 12 largest logits with their class numbers, which the axes would blur. Mean and axes are fitted to answers on
view 0 once, as they are written, and lie sealed beside the rows. The level of all logits, good for nothing in a softmax,
is left out. A teacher whose answers do not lie so is refused by the error on samples that were not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import MASKED
from kd_lightning.rng import RngStream
from kd_lightning.teachers.cache.approximate import SCORES, WARMEST_SCORES
from kd_lightning.teachers.cache.forms import NotCacheable, class_numbers, number_column, relative_deviation
from kd_lightning.teachers.cache.store import Column

AXES, KEPT = 64, 12
LARGEST_ERROR = 0.2  # of a sample's softmax at the warmest temperature, the mean over samples that were not fitted to
FEWEST_CLASSES = 134  # with fewer, six bits a logit take no more bytes
_TOP = 255  # the largest code of a kept logit, 0 being the largest's own


class PrincipalScores:
    """Logits (N, C) as scores on principal axes, with the largest as they are.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        if classes < FEWEST_CLASSES:
            raise UserError(
                f"teacher.cache_precision={SCORES} is for {FEWEST_CLASSES} classes or more, there are {classes}: use 6bit"
            )
        self._classes = classes
        self.columns = [
            Column("scores", "int8", (AXES,)),
            Column("classes", number_column(classes), (KEPT,)),
            Column("below", "uint8", (KEPT,)),
            Column("largest", "fp16", ()),
            Column("span", "fp16", ()),
        ]
        self._mean: Tensor | None = None
        self._axes = torch.empty(0)

    def fit(self, logits: Tensor) -> Tensor:
        """What rows are to be read with, float32 of shape (1 + AXES, C): the mean, then the axes.

        An axis is as long as one step of its score: the byte 127 is passed by a thousandth of the samples.

        Args:
            logits: of several hundred samples or more, (N, C), in random order.

        Raises:
            NotCacheable: the answers do not lie near so few axes.
        """
        held_out = logits[: len(logits) // 8]
        rows = self._centred(logits[len(held_out) :])
        mean = rows.mean(0)
        with RngStream(0):
            axes = torch.svd_lowrank(rows - mean, q=min(AXES + 16, *rows.shape), niter=4)[2][:, :AXES]
        axes = torch.nn.functional.pad(axes, (0, AXES - axes.shape[1]))
        scores = ((rows - mean) @ axes).abs()
        step = scores.kthvalue(math.ceil(0.999 * len(scores)), dim=0).values / 127
        fitted = torch.cat([mean[None], (axes * step.clamp_min(1e-6)).T])
        self.use(fitted.cpu())
        self._require_small_error(held_out.float().cpu())
        return fitted

    def _require_small_error(self, logits: Tensor) -> None:
        stored = self.logits(self.parts(logits))
        soft, near = ((values / WARMEST_SCORES).softmax(1) for values in (logits, stored))
        error = float(((near - soft).norm(dim=1) / (soft - 1 / self._classes).norm(dim=1).clamp_min(1e-9)).mean())
        if error > LARGEST_ERROR:
            raise NotCacheable(
                f"teacher.cache_precision={SCORES} does not suit this teacher: {AXES} axes leave an error of {error:.0%} in its "
                f"answers at temperature {WARMEST_SCORES:g}, {LARGEST_ERROR:.0%} is the most: use 6bit"
            )

    def use(self, fitted: Tensor) -> None:
        """Take what :meth:`fit` gave."""
        self._mean, self._axes = fitted[0], fitted[1:]

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        rows = self._centred(logits)
        top = rows.topk(KEPT, dim=1)
        largest = top.values[:, :1]
        below = largest - top.values
        span = torch.maximum(below[:, -1:], largest.abs() * 2.0**-10).clamp_min(2.0**-13)
        codes = (below / span.half().float()).sqrt_().mul_(_TOP).round_().clamp_(1, _TOP)
        codes[:, 0] = 0
        return {
            "scores": self._scores(rows).round_().clamp_(-127, 127),
            "classes": top.indices,
            "below": codes,
            "largest": largest[:, 0],
            "span": span[:, 0],
        }

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        assert self._mean is not None, "use() what was fitted first"
        kept = self._kept(parts)
        rows = torch.addmm(self._mean, parts["scores"].float(), self._axes)
        rows = torch.minimum(rows, kept[:, -1:])  # what was not kept is not above what was
        return rows.scatter(1, class_numbers(parts["classes"], self.columns[1]), kept)

    def deviation(self, live: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """The kept logits by their levels; the scores by their bytes, as much as so many logits may differ."""
        rows = self._centred(live)
        numbers = class_numbers(parts["classes"], self.columns[1])
        codes = parts["below"].float()
        rounding = (codes + 0.5) * (parts["span"].float() / _TOP**2)[:, None]
        kept = relative_deviation(rows.gather(1, numbers), self._kept(parts), rounding)
        stored = parts["scores"].float()
        apart = (self._scores(rows) - stored).abs() - 0.5
        apart = apart.masked_fill(stored.abs() >= 127, 0) * self._axes.norm(dim=1)
        return torch.maximum(kept, apart.amax(1) / math.sqrt(self._classes) / (1 + rows.abs().amax(1)))

    def _kept(self, parts: Mapping[str, Tensor]) -> Tensor:
        unit = parts["span"].float().div_(-(_TOP**2))[:, None]
        return torch.addcmul(parts["largest"].float()[:, None], parts["below"].float().square_(), unit)

    def _scores(self, rows: Tensor) -> Tensor:
        assert self._mean is not None, "use() what was fitted first"
        axes = self._axes.to(rows.device)
        return (rows - self._mean.to(rows.device)) @ axes.T / axes.square().sum(1).clamp_min(1e-30)

    @staticmethod
    def _centred(logits: Tensor) -> Tensor:
        rows = logits.float()
        if rows.numel() and float(rows.amin()) <= MASKED:
            raise NotCacheable(
                f"teacher.cache_precision={SCORES} cannot hold classes that the teacher masks (logits of -inf): use fp16"
            )
        return rows - rows.mean(1, keepdim=True)
