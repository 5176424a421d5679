"""Scenes that need no download of their own: Fashion-MNIST's items on canvases. Their target is a class for each pixel, which
kinds of items are seen, or how much of the canvas they cover.

Each scene is made of real items at random places and in random sizes, later ones in front of earlier ones, before a
slanted grey background with noise. Which items, where, is a hash of (what, scene): the same on every machine. Scenes of
the training split are made of training items only, those of the test split of test items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.data.augment import hash_bits, integers
from kd_lightning.data.fashion_mnist import KINDS, FashionMnistData
from kd_lightning.errors import UserError

VISIBLE = 24  # of 255: darker pixels of an item are what it lies on
SEEN = 40
"""Pixels of a kind of item from which on it counts as seen, and is not hidden behind others."""
TARGETS = ("masks", "presence", "area")
_DRAWS = 5  # item, size, top, left, brightness
_SPLITS = {"train": 71, "test": 72}


class FashionScenesData(FashionMnistData):
    """Scenes (N, 1, canvas, canvas).

    Args:
        target: "masks", (N, canvas, canvas): background and ten kinds of clothing, 11 classes. "presence", (N, 10) of 0 and 1:
            which kinds are seen, with at least :data:`SEEN` pixels. "area", (N, 1), float32: per cent of the canvas that
            items cover.
        scenes, test_scenes: how many there are for training and validation, and for the test, >= 2.
        canvas: pixels of a side, >= 32.
        most_items: each scene has one to so many, >= 1.
        settings: those of :class:`~kd_lightning.data.fashion_mnist.FashionMnistData`.
    """

    num_classes: int = 11
    class_names: list[str] | None = ["background", *KINDS]
    mean = [0.325]
    std = [0.148]
    default_augment = {"crop_padding": 4, "flip": True}

    def __init__(
        self,
        scenes: int = 2200,
        test_scenes: int = 500,
        canvas: int = 64,
        most_items: int = 5,
        target: str = "masks",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if target not in TARGETS:
            raise UserError(f"data.target must be one of {', '.join(TARGETS)}, got {target!r}")
        for key, value, least in (
            ("scenes", scenes, 2), ("test_scenes", test_scenes, 2), ("canvas", canvas, 32), ("most_items", most_items, 1),
        ):  # fmt: skip
            if value < least:
                raise UserError(f"data.{key} must be >= {least}, got {value}")
        self.scenes, self.test_scenes, self.image_size, self.most_items = scenes, test_scenes, canvas, most_items
        self.target = target
        if target != "masks":
            self.num_classes = 10 if target == "presence" else 1
            self.class_names = KINDS if target == "presence" else None

    def train_data(self) -> tuple[Tensor, Tensor]:
        """The scenes that training and validation are chosen from."""
        return self._scenes("train", self.scenes)

    def test_data(self) -> tuple[Tensor, Tensor]:
        """The test scenes."""
        return self._scenes("test", self.test_scenes)

    def _scenes(self, split: str, count: int) -> tuple[Tensor, Tensor]:
        items, kinds = self._read(split)
        size, index = int(self.image_size or 0), np.arange(count)
        pictures = _background(size, count, _SPLITS[split])
        masks = torch.zeros(count, size, size, dtype=torch.int64)
        number = integers(hash_bits(_SPLITS[split], 0, index, 1), self.most_items)[:, 0] + 1
        for layer in range(self.most_items):
            bits = hash_bits(_SPLITS[split], layer + 1, index, _DRAWS)
            which, side, *_ = draws = [
                integers(bits[:, k], below) for k, below in enumerate((len(items), 17, 1 << 16, 1 << 16, 96))
            ]
            side = side + 20  # 20 to 36 pixels
            for scene in np.flatnonzero(layer < number).tolist():
                length = min(int(side[scene]), size)
                top, left = (int(draws[k][scene]) * (size - length + 1) >> 16 for k in (2, 3))
                _paste(
                    pictures[scene],
                    masks[scene],
                    items[int(which[scene]), 0],
                    int(kinds[int(which[scene])]) + 1,
                    top,
                    left,
                    length,
                    160 + int(draws[4][scene]),
                )
        return pictures.unsqueeze(1), _target_of(masks, self.target)


def _target_of(masks: Tensor, target: str) -> Tensor:
    """What is asked of scenes with these masks (N, S, S)."""
    if target == "presence":
        pixels = torch.stack([(masks == kind).sum((1, 2)) for kind in range(1, 11)], 1)
        return (pixels >= SEEN).long()
    return masks if target == "masks" else 100 * (masks > 0).float().mean((1, 2))[:, None]


def _background(size: int, count: int, seed: int) -> Tensor:
    """Grey that slants from one side to the other, with noise: uint8 (count, size, size)."""
    bits = hash_bits(seed, -2, np.arange(count), 3)
    base, across, down = (torch.from_numpy(integers(bits[:, k], 60).astype(np.float32)) for k in range(3))
    line = torch.linspace(-0.5, 0.5, size)
    slant = base.view(-1, 1, 1) + 30 + (across - 30).view(-1, 1, 1) * line + (down - 30).view(-1, 1, 1) * line[:, None]
    noise = (
        integers(hash_bits(seed, -3, np.arange(count), size * size), 25).astype(np.float32).reshape(count, size, size)
    )
    return (slant + torch.from_numpy(noise)).clamp(0, 255).to(torch.uint8)


def _paste(
    picture: Tensor, mask: Tensor, item: Tensor, kind: int, top: int, left: int, length: int, white: int
) -> None:
    """Put an item (28, 28), scaled to ``length`` pixels a side, into a picture and its mask, in place."""
    scaled = F.interpolate(item[None, None].float(), (length, length), mode="bilinear", align_corners=False)[0, 0]
    seen = scaled > VISIBLE
    place = (slice(top, top + length), slice(left, left + length))
    picture[place] = torch.where(seen, (scaled * (white / 255)).to(torch.uint8), picture[place])
    mask[place] = torch.where(seen, kind, mask[place])
