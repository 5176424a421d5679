"""Augmentation that can be replayed: each random number is a hash of (seed, view, sample index, which number).

A counter-based generator (the finaliser of SplitMix64: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators") has no state to hand from sample to sample. So a view of a sample is the same whatever batch, thread,
process or order it is made in, a run resumes without storing a generator, and a teacher's output on a view can be
stored.

:class:`CropFlip` is the usual small-image augmentation over a whole batch held in memory: one copy of a contiguous run
of values a sample instead of index arithmetic for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ONE, _S27, _S30, _S31, _S32, _S40 = (np.uint64(s) for s in (1, 27, 30, 31, 32, 40))
_A, _B, _G = np.uint64(_FIRST), np.uint64(_SECOND), np.uint64(_GOLDEN)

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}


def hash_bits(seed: int, view: int, indices: Tensor | np.ndarray, count: int) -> np.ndarray:
    """64 random bits for each of ``count`` draws of each sample.

    Args:
        seed, view: any integers; together they choose the stream.
        indices: shape (N,), int64, each sample's position in its data set.
        count: draws a sample.

    Returns:
        uint64 of shape (N, count); row i depends on ``(seed, view, indices[i])`` alone.
    """
    counters = np.asarray(indices, dtype=np.int64).astype(np.uint64)  # a fresh array: mixed in place below
    counters *= _G
    counters += np.uint64(_mix_int(_mix_int(int(seed) & _MASK) + _GOLDEN * (int(view) + 1)))
    _mix(counters)
    draws = np.arange(1, count + 1, dtype=np.uint64)
    draws *= _B
    return _mix(counters[:, None] + draws)


def uniforms(seed: int, view: int, indices: Tensor | np.ndarray, count: int) -> Tensor:
    """Uniform numbers in [0, 1): float32 of shape (N, count), see :func:`hash_bits`."""
    bits = hash_bits(seed, view, indices, count)
    bits >>= _S40  # 24 bits: what a float32 holds exactly
    return torch.from_numpy(bits.astype(np.float32) * np.float32(2.0**-24))


def integers(bits: np.ndarray, below: int) -> np.ndarray:
    """Turn hashed bits into integers in [0, below), int64 (by multiplication, so without the bias of a remainder)."""
    return (((bits >> _S32) * np.uint64(below)) >> _S32).astype(np.int64)


class CropFlip:
    """Random shift by cropping out of a padded image, and random horizontal flip, for images held in memory.

    Args:
        crop_padding: pixels added on each side before a crop of the original size is taken, >= 0: the picture moves by
            up to so many pixels in both directions, each shift equally likely; 0 turns the crop off.
        flip: mirror half of the samples left to right.
        padding_mode: what fills the border: ``zeros`` (black), ``reflect`` or ``edge``.
    """

    def __init__(self, crop_padding: int = 0, flip: bool = False, padding_mode: str = "zeros") -> None:
        if not isinstance(crop_padding, int) or isinstance(crop_padding, bool) or crop_padding < 0:
            raise UserError(f"data.augment.crop_padding must be a whole number >= 0, got {crop_padding!r}")
        if not isinstance(flip, bool):
            raise UserError(f"data.augment.flip must be true or false, got {flip!r}")
        if padding_mode not in PADDING_MODES:
            raise UserError(
                f"data.augment.padding_mode must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}"
            )
        self.crop_padding, self.flip, self.padding_mode = crop_padding, flip, padding_mode

    @property
    def active(self) -> bool:
        """Whether a sample's views differ at all."""
        return self.crop_padding > 0 or self.flip

    def settings(self) -> dict:
        """What the views depend on, for fingerprints."""
        return {"crop_padding": self.crop_padding, "flip": self.flip, "padding_mode": self.padding_mode}

    def pad(self, images: Tensor, outside: int = 0) -> Tensor:
        """Images (N, C, H, W) with the border that crops are taken from: (N, C, H + 2p, W + 2p), same dtype.

        ``outside`` is what lies beyond the border with ``zeros``.
        """
        p = self.crop_padding
        if p == 0:
            return images.contiguous()
        if p >= min(images.shape[2:]):
            raise UserError(
                f"data.augment.crop_padding={p} moves pictures of {images.shape[2]}x{images.shape[3]} pixels out of sight: use "
                "a smaller padding"
            )
        if self.padding_mode == "zeros":
            return F.pad(images, (p, p, p, p), value=outside)
        # torch pads uint8 by constants only; parts keep the float copy small
        parts = [
            F.pad(part.float(), (p, p, p, p), mode=PADDING_MODES[self.padding_mode]) for part in images.split(4096)
        ]
        return torch.cat([part.to(images.dtype) for part in parts])

    def gather(self, padded: Tensor, indices: Tensor, seed: int, view: int, draws_of: Tensor | None = None) -> Tensor:
        """One view of the samples at ``indices``, shape (N,): pixels (N, C, H, W) in the dtype of ``padded``.

        ``padded`` is what :meth:`pad` returned, of shape (M, C, H + 2p, W + 2p). ``draws_of``, shape (N,): the samples
        whose random numbers are used, if they are not those at the same places in ``padded``.
        """
        p, (_, c, hp, wp) = self.crop_padding, padded.shape
        h, w, shifts = hp - 2 * p, wp - 2 * p, 2 * p + 1
        bits = hash_bits(seed, view, indices if draws_of is None else draws_of, 1)[:, 0]
        starts = indices * (c * hp * wp)
        if p:
            down, right = np.divmod(integers(bits, shifts * shifts), shifts)
            starts += torch.from_numpy(down * wp + right)
        if self.flip:
            flipped = (bits & _ONE).astype(bool)  # integers() uses the high bits
            order = torch.from_numpy(np.argsort(flipped, kind="stable"))
            straight = len(flipped) - int(np.count_nonzero(flipped))  # these stand first: both kinds are slices
            starts = starts[order]
        # The run of values from a crop's first pixel to its last: rows lie wp apart in it, channels hp * wp. Runs are
        # rows of an overlapping view, so that each is one memcpy.
        length = (c - 1) * hp * wp + (h - 1) * wp + w
        runs = padded.view(-1).unfold(0, length, 1).index_select(0, starts.to(padded.device))
        crops = runs.as_strided((len(starts), c, h, w), (length, hp * wp, wp, 1))
        if not self.flip:
            return crops
        pixels = torch.cat([crops[:straight], crops[straight:].flip(-1)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return pixels.index_select(0, back.to(padded.device))


def is_dense(target: Tensor, size: Sequence[int]) -> bool:
    """Whether targets (N, ..., H, W) have a value for each pixel of images of that ``size``, (H, W)."""
    return target.dim() >= 3 and tuple(target.shape[-2:]) == tuple(size)


def dense_as_images(target: Tensor) -> Tensor:
    """Targets (N, ..., H, W) as images (N, C, H, W), to be cropped and flipped like them."""
    return target.reshape(len(target), -1, *target.shape[-2:])


def moved_along(
    augment: CropFlip, target: Tensor, size: Sequence[int], indices: Tensor, seed: int, view: int, draws_of: Tensor
) -> Tensor:
    """Targets that belong to the pixels of images of that ``size`` are cropped and flipped as these are; others stay.

    Arguments as of :meth:`CropFlip.gather`. What a crop takes from outside of the picture has no label.
    """
    if not is_dense(target, size):
        return target
    padded = augment.pad(dense_as_images(target), 0 if target.is_floating_point() else UNLABELLED)
    return augment.gather(padded, indices, seed, view, draws_of).reshape(len(indices), *target.shape[1:])


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, in place on uint64 (array arithmetic wraps, which is what is wanted)."""
    x ^= x >> _S30
    x *= _A
    x ^= x >> _S27
    x *= _B
    x ^= x >> _S31
    return x


def _mix_int(x: int) -> int:
    """The same for one Python integer."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * _SECOND) & _MASK
    return x ^ (x >> 31)
