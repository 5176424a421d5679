"""Which part of a picture a view shows, and that part at the model's size.

Two views: the random resized crop of Szegedy et al. 2014 (arXiv:1409.4842, section 6; the distribution is that of
torchvision's ``RandomResizedCrop``) for training, and resize + centre crop for evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.data.augment import uniforms
from kd_lightning.errors import UserError

_TRIES = 10
_DRAWS = 2 * _TRIES + 3  # area and ratio of each try; top, left; flip


class RandomResizedCrop:
    """A random part of the picture, resized to a square, and mirrored in half of the cases.

    Args:
        size: pixels of a side of the result, >= 1.
        scale: smallest and largest part of the picture's area, 0 < least <= most <= 1.
        ratio: smallest and largest width / height before the resize, > 0.
        flip: mirror half of the samples left to right.
        seed: of the hash that all choices come from.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: bool = True,
        seed: int = 0,
    ) -> None:
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise UserError(f"data.augment.scale must be [least, most] with 0 < least <= most <= 1, got {list(scale)}")
        if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
            raise UserError(f"data.augment.ratio must be [least, most] with 0 < least <= most, got {list(ratio)}")
        self.size, self.scale, self.ratio, self.flip, self.seed = size, tuple(scale), tuple(ratio), flip, seed

    def settings(self) -> dict:
        """What a view depends on besides (index, view), for fingerprints."""
        return {"size": self.size, "scale": self.scale, "ratio": self.ratio, "flip": self.flip, "seed": self.seed}

    def draw(self, indices: Tensor, view: int) -> list[list[float]]:
        """The random numbers of each sample, for :meth:`cut`."""
        return uniforms(self.seed, view, indices, _DRAWS).tolist()

    def box(self, height: int, width: int, draw: list[float]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the part of a picture that the numbers choose."""
        least, span = self.scale[0], self.scale[1] - self.scale[0]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for k in range(0, 2 * _TRIES, 2):
            area = height * width * (least + span * draw[k])
            ratio = math.exp(low + (high - low) * draw[k + 1])
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(draw[-3] * (height - h + 1)), int(draw[-2] * (width - w + 1)), h, w
        # none fitted: the largest part in the middle whose ratio is allowed
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def factor(self, height: int, width: int, draw: list[float]) -> int:
        """By how much a picture can be shrunk before the crop has fewer pixels than the result: 1, 2, 4 or 8."""
        return _power(min(self.box(height, width, draw)[2:]) / self.size)

    def rows(self, height: int, width: int, draw: list[float]) -> int:
        """How many rows from the top of a picture the crop looks at."""
        top, _, h, _ = self.box(height, width, draw)
        return top + h

    def cut(self, pixels: np.ndarray, full: tuple[int, int], draw: list[float]) -> Tensor:
        """One sample's view of a picture: uint8 of shape (1, 3, size, size).

        Args:
            pixels: shape (H, W, 3), the picture or a smaller copy of it.
            full: the picture's own height and width.
            draw: the sample's row of :meth:`draw`.
        """
        top, left, h, w = self.box(*full, draw)
        if pixels.shape[:2] != full:
            down, right = pixels.shape[0] / full[0], pixels.shape[1] / full[1]
            top, left, h, w = round(top * down), round(left * right), round(h * down), round(w * right)
        view = resize(pixels[top : top + h, left : left + w], (self.size, self.size))
        return view.flip(-1) if self.flip and draw[-1] < 0.5 else view


class CentreCrop:
    """The shorter side resized to ``resize`` pixels, then the middle square of ``size`` pixels: one view a sample."""

    def __init__(self, size: int, resize: int) -> None:
        if resize < size:
            raise UserError(f"data.resize={resize} must be at least data.image_size={size}: the crop is cut out of it")
        self.size, self.resize = size, resize

    def settings(self) -> dict:
        """What a view depends on, for fingerprints."""
        return {"size": self.size, "resize": self.resize}

    def draw(self, indices: Tensor, view: int) -> list[None]:
        """Nothing is random."""
        return [None] * len(indices)

    def factor(self, height: int, width: int, draw: None) -> int:
        """By how much a picture can be shrunk before the resize would enlarge it: 1, 2, 4 or 8."""
        return _power(min(height, width) / self.resize)

    def rows(self, height: int, width: int, draw: None) -> int:
        """How many rows from the top of a picture the result depends on."""
        resized = self._resized(height, width)[0]
        last = round((resized - self.size) / 2) + self.size - 1
        scale = height / resized
        return min(height, math.ceil((last + 0.5) * scale + max(scale, 1.0)) + 1)  # the antialiasing filter's reach

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The picture's size when its shorter side is ``resize``."""
        if height <= width:
            return self.resize, max(self.resize, int(self.resize * width / height))
        return max(self.resize, int(self.resize * height / width)), self.resize

    def cut(self, pixels: np.ndarray, full: tuple[int, int], draw: None) -> Tensor:
        """The middle of a picture: uint8 of shape (1, 3, size, size), see :meth:`RandomResizedCrop.cut`."""
        target = self._resized(*full)
        top, left = (round((side - self.size) / 2) for side in target)
        whole = resize(pixels, target)
        return whole[:, :, top : top + self.size, left : left + self.size]


def _power(ratio: float) -> int:
    """The largest of 8, 4, 2, 1 that is not above ``ratio``; 1 if all are."""
    return next((factor for factor in (8, 4, 2) if factor <= ratio), 1)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Antialiased bilinear resize of a picture (H, W, 3) uint8, or a slice of one, to (1, 3, *size) uint8.

    Torch's routine for bytes takes a third of Pillow's time where channels lie last in memory and nothing between
    rows; the result lies likewise.
    """
    image = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return F.interpolate(image, size, mode="bilinear", antialias=True)
