"""Mixup and CutMix that can be replayed: partner, weight and box of a picture are a function of (seed, view, index).

Each picture is mixed with that of another training sample, which is drawn from all of them and shows the view that it
has itself in this epoch. Nothing depends on the batch, so a mixed picture can be made again, and a teacher's answer to it
be stored, as those of crops are. (A partner out of the same batch, as is usual, would change with batch size, order and
number of processes.)

- mixup (Zhang et al. 2018, arXiv:1710.09412): ``x = w x1 + (1 - w) x2``, w from Beta(alpha, alpha);
- CutMix (Yun et al. 2019, arXiv:1905.04899): a box of x1 of area ``(1 - l) H W``, l from Beta(alpha, alpha), around a
  place drawn evenly, is that of x2; w is what is left of x1 once the box is clipped at the border.

The label is ``w`` of the sample's and ``1 - w`` of the partner's class.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.augment import hash_bits, integers
from kd_lightning.errors import UserError

_STREAM = 0x6D697875  # of its own, apart from the crops' and flips' numbers
_QUANTILES = 4096
_STEPS = 1024  # weights are multiples of 1 / 1024: what another version of scipy rounds otherwise stays the same
_S52, _ONE = np.uint64(52), np.uint64(1)


class MixPlan(NamedTuple):
    """How N pictures are mixed.

    Attributes:
        partner: position among the training samples, int64 of shape (N,).
        weight: share of the sample itself, float32 of shape (N,), in [0, 1].
        mask: share of the sample itself in each pixel, float32 of shape (N, 1, H, W), or (N, 1, 1, 1) where none is cut.
    """

    partner: Tensor
    weight: Tensor
    mask: Tensor


class Mixing:
    """How training pictures are mixed; where both are asked for, one of them is drawn for each sample.

    Args:
        mixup: alpha of mixup's Beta distribution, >= 0; 0 or None: no mixup.
        cutmix: alpha of CutMix's.

    Raises:
        UserError: an alpha is no number >= 0.
    """

    def __init__(self, mixup: float | None = None, cutmix: float | None = None) -> None:
        for key, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            known = alpha is None or (isinstance(alpha, (int, float)) and not isinstance(alpha, bool))
            if not known or (alpha is not None and not 0 <= alpha < float("inf")):
                raise UserError(
                    f"data.augment.{key} must be a number >= 0 (alpha of Beta(alpha, alpha)), got {alpha!r}"
                )
        self.mixup, self.cutmix = mixup or None, cutmix or None

    @property
    def active(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def keys(self) -> str:
        """The configuration's keys that ask for it, for messages."""
        return " and ".join(f"data.augment.{key}" for key in ("mixup", "cutmix") if getattr(self, key) is not None)

    def settings(self) -> dict[str, object]:
        """What the mixed views depend on besides the training samples, for fingerprints."""
        alphas = {"mixup": self.mixup, "cutmix": self.cutmix}
        digest = hashlib.blake2b(digest_size=8)
        for alpha in alphas.values():
            if alpha is not None:
                digest.update(beta_quantiles(alpha).tobytes())
        return {**alphas, "quantiles": digest.hexdigest()}

    def plan(self, seed: int, view: int, indices: Tensor, samples: int, height: int, width: int) -> MixPlan:
        """How the samples at ``indices``, int64 of shape (N,) out of ``samples``, are mixed in a view."""
        bits = hash_bits(seed ^ _STREAM, view, indices, 5)
        rank = (bits[:, 1] >> _S52).astype(np.int64)
        cut = self._cut(bits[:, 2])
        weight = np.ones(len(bits), np.float32)
        if self.mixup is not None:
            weight = np.where(cut, weight, beta_quantiles(self.mixup)[rank])
        mask = torch.from_numpy(weight).view(-1, 1, 1, 1)
        if self.cutmix is not None:
            kept = np.where(cut, beta_quantiles(self.cutmix)[rank], np.float32(1))
            box = _boxes(bits[:, 3], bits[:, 4], kept, height, width)
            weight = np.where(cut, _left(box, height, width), weight)
            mask = mask - _inside(box, height, width)
        return MixPlan(torch.from_numpy(integers(bits[:, 0], samples)), torch.from_numpy(weight), mask)

    def _cut(self, bits: np.ndarray) -> np.ndarray:
        """Which pictures are cut instead of blended: half of them where both are asked for."""
        if self.mixup is None or self.cutmix is None:
            return np.full(len(bits), self.mixup is None)
        return (bits & _ONE).astype(bool)


def mixed(own: Tensor, partner: Tensor, mask: Tensor) -> Tensor:
    """``mask * own + (1 - mask) * partner`` for float pictures (N, C, H, W); exactly one of them where the mask is 0 or 1."""
    return torch.lerp(partner, own, mask.to(own.device))


@lru_cache(maxsize=16)
def beta_quantiles(alpha: float) -> np.ndarray:
    """4096 quantiles of Beta(alpha, alpha), float32: a weight is one of them, picked by 12 hashed bits."""
    from scipy.stats import beta

    middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    quantiles: np.ndarray = (np.rint(beta.ppf(middles, alpha, alpha) * _STEPS) / _STEPS).astype(np.float32)
    quantiles.setflags(write=False)
    return quantiles


def _boxes(vertical: np.ndarray, horizontal: np.ndarray, kept: np.ndarray, height: int, width: int) -> np.ndarray:
    """Top, bottom, left and right of boxes that take ``1 - kept`` of a picture, clipped at its border: (4, N)."""
    side = np.sqrt(1 - kept.astype(np.float64))
    sides = []
    for bits, length in ((vertical, height), (horizontal, width)):
        size = np.floor(side * length).astype(np.int64)
        first = integers(bits, length) - size // 2
        sides += [np.clip(first, 0, length), np.clip(first + size, 0, length)]
    return np.stack(sides)


def _left(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """What share of the pictures lies outside of the boxes."""
    top, bottom, left, right = box
    share: np.ndarray = (1 - (bottom - top) * (right - left) / (height * width)).astype(np.float32)
    return share


def _inside(box: np.ndarray, height: int, width: int) -> Tensor:
    """1 inside of each box, else 0: float32 of shape (N, 1, H, W)."""
    top, bottom, left, right = (torch.from_numpy(edge).view(-1, 1) for edge in box)
    rows, columns = torch.arange(height), torch.arange(width)
    inner_rows = ((rows >= top) & (rows < bottom)).float()
    inner_columns = ((columns >= left) & (columns < right)).float()
    return (inner_rows[:, :, None] * inner_columns[:, None, :])[:, None]
