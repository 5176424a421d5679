"""Augmentation policies and random erasing that can be replayed: what happens to a picture is a function of (seed, view, index).

- TrivialAugment (Müller & Hutter 2021, arXiv:2103.10158, "wide"): one operation, drawn evenly from 14, its strength drawn
  evenly from 31;
- RandAugment (Cubuk et al. 2020, arXiv:1909.13719): n operations one after another, of one strength (9 of 30);
- random erasing (Zhong et al. 2020, arXiv:1708.04896): with probability p a box of the finished picture, of 2 to 33 % of its
  area and sides in a ratio of 0.3 to 3.3, becomes the mean colour (0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data import operations as do
from kd_lightning.data.augment import hash_bits, integers, uniforms
from kd_lightning.errors import UserError

OPERATIONS = (
    "identity", "autocontrast", "equalize", "solarize", "posterize", "brightness", "contrast", "colour", "sharpness",
    "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
_STREAM, _ERASING = 0x706F6C69, 0x65726173  # of their own, apart from the numbers of crops and mixing
_STRENGTHS, _MAGNITUDE = 31, 9
_ONE = np.uint64(1)


@dataclass(frozen=True)
class Space:
    """What the largest strength is.

    Attributes:
        shear: pixels aside for each pixel away from the corner.
        translate: in pixels, of pictures (H, W); the first number shifts down.
        rotate: degrees.
        factor: of brightness, contrast, colour and sharpness: 1 and so much more or less, in thousandths.
        bits: that posterize takes away.
    """

    shear: float
    translate: Callable[[int, int], tuple[float, float]]
    rotate: float
    factor: int
    bits: int


WIDE = Space(0.99, lambda h, w: (min(32.0, h), min(32.0, w)), 135.0, 990, 6)
RAND = Space(0.3, lambda h, w: (150 / 331 * h, 150 / 331 * w), 30.0, 900, 4)


class Policy:
    """Operations on training pictures, and erasing.

    Args:
        trivial: TrivialAugment.
        randaugment: how many of RandAugment's operations, >= 0; 0 or None: none.
        erasing: p in [0, 1]; 0 or None: none.

    Raises:
        UserError: an argument out of its range, or both policies at once.
    """

    def __init__(self, trivial: bool = False, randaugment: int | None = None, erasing: float | None = None) -> None:
        if not isinstance(trivial, bool):
            raise UserError(f"data.augment.trivial must be true or false, got {trivial!r}")
        if randaugment is not None and (
            not isinstance(randaugment, int) or isinstance(randaugment, bool) or randaugment < 0
        ):
            raise UserError(f"data.augment.randaugment must be a whole number >= 0, got {randaugment!r}")
        known = erasing is None or (isinstance(erasing, (int, float)) and not isinstance(erasing, bool))
        if not known or (erasing is not None and not 0 <= erasing <= 1):
            raise UserError(f"data.augment.erasing must be a probability in [0, 1], got {erasing!r}")
        if trivial and randaugment:
            raise UserError("data.augment: trivial and randaugment are two policies: choose one of them")
        self.trivial, self.randaugment, self.erasing = trivial, randaugment or 0, erasing or 0.0

    @property
    def active(self) -> bool:
        """Whether anything happens."""
        return self.changes_bytes or self.erasing > 0

    @property
    def changes_bytes(self) -> bool:
        """Whether there are operations."""
        return self.trivial or self.randaugment > 0

    @property
    def keys(self) -> str:
        """The configuration's keys that ask for it, for messages."""
        asked = [key for key in ("trivial", "randaugment", "erasing") if getattr(self, key)]
        return " and ".join(f"data.augment.{key}" for key in asked)

    @property
    def keys_of_bytes(self) -> str:
        """Those that ask for operations."""
        return "data.augment.trivial" if self.trivial else "data.augment.randaugment"

    def settings(self) -> dict[str, object]:
        """What the views depend on, for fingerprints."""
        return {"trivial": self.trivial, "randaugment": self.randaugment, "erasing": self.erasing}

    def changed(self, pixels: Tensor, indices: Tensor, seed: int, view: int) -> Tensor:
        """Pictures (N, C, H, W), bytes, of the samples at ``indices`` after their operations."""
        for turn in range(1 if self.trivial else self.randaugment):
            bits = hash_bits(seed ^ (_STREAM + turn), view, indices.cpu(), 3)
            which = integers(bits[:, 0], len(OPERATIONS))
            strength = integers(bits[:, 1], _STRENGTHS) if self.trivial else np.full(len(which), _MAGNITUDE)
            sign = np.where(bits[:, 2] & _ONE, 1, -1)
            pixels = operated(pixels, which, strength, sign, WIDE if self.trivial else RAND)
        return pixels

    def erase(self, values: Tensor, indices: Tensor, seed: int, view: int) -> Tensor:
        """Normalised pictures (N, C, H, W), erased in place."""
        if not self.erasing:
            return values
        height, width = values.shape[2:]
        draws = uniforms(seed ^ _ERASING, view, indices.cpu(), 3).double().numpy()
        places = hash_bits(seed ^ (_ERASING + 1), view, indices.cpu(), 2)
        area = (0.02 + (1 / 3 - 0.02) * draws[:, 1]) * height * width
        ratio = np.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * draws[:, 2])
        sides = [np.sqrt(area * ratio), np.sqrt(area / ratio)]
        chosen = torch.from_numpy(draws[:, 0] < self.erasing).view(-1, 1)
        inside = []
        for bits, side, length in zip(places.T, sides, (height, width), strict=True):
            size = np.clip(np.rint(side), 1, length).astype(np.int64)
            # below a number of its own for each sample, as `integers` does with one for all
            first = (((bits >> np.uint64(32)) * (length - size + 1).astype(np.uint64)) >> np.uint64(32)).astype(
                np.int64
            )
            start, size_, along = (
                torch.from_numpy(first).view(-1, 1),
                torch.from_numpy(size).view(-1, 1),
                torch.arange(length),
            )
            inside.append((along >= start) & (along < start + size_) & chosen)
        box = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
        return values.masked_fill_(box.to(values.device), 0.0)


def operated(pixels: Tensor, which: np.ndarray, strength: np.ndarray, sign: np.ndarray, space: Space) -> Tensor:
    """Pictures (N, C, H, W) after operation ``which`` (N,), positions in :data:`OPERATIONS`, each of its strength, 0 to 30, and
    sign, 1 or -1, where the operation has one."""
    out = pixels.clone(memory_format=torch.contiguous_format)
    for number in range(1, len(OPERATIONS)):
        rows = np.flatnonzero(which == number)
        if not len(rows):
            continue
        place = torch.from_numpy(rows).to(pixels.device)
        some = pixels.index_select(0, place)
        out.index_copy_(0, place, _operate(OPERATIONS[number], some, strength[rows], sign[rows], space))
    return out


def _operate(name: str, pixels: Tensor, strength: np.ndarray, sign: np.ndarray, space: Space) -> Tensor:
    def numbers(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(pixels.device)

    most = _STRENGTHS - 1
    if name in ("autocontrast", "equalize"):
        return do.autocontrast(pixels) if name == "autocontrast" else do.equalize(pixels)
    if name == "solarize":
        return do.solarize(pixels, numbers(-(-255 * (most - strength) // most)))
    if name == "posterize":
        return do.posterize(pixels, numbers(8 - np.rint(strength * space.bits / most)))
    if name in ("brightness", "contrast", "colour", "sharpness"):
        factors = numbers(do.WHOLE + sign * (space.factor * strength // most))
        return {"brightness": do.brightness, "contrast": do.contrast, "colour": do.colour, "sharpness": do.sharpness}[
            name
        ](pixels, factors)
    return do.moved(pixels, torch.from_numpy(_matrices(name, sign * strength / most, space, *pixels.shape[2:])))


def _matrices(name: str, part: np.ndarray, space: Space, height: int, width: int) -> np.ndarray:
    """Where pixels come from, (N, 2, 3), for ``part`` of the largest strength, -1 to 1."""
    made = np.tile(np.eye(2, 3), (len(part), 1, 1))
    if name == "rotate":
        angle = np.deg2rad(space.rotate * part)
        made[:, 0, 0] = made[:, 1, 1] = np.cos(angle)
        made[:, 1, 0], made[:, 0, 1] = np.sin(angle), -np.sin(angle)
    elif name == "shear_x":  # the upper left corner stays
        made[:, 0, 1], made[:, 0, 2] = space.shear * part, space.shear * part * height / 2
    elif name == "shear_y":
        made[:, 1, 0], made[:, 1, 2] = space.shear * part, space.shear * part * width / 2
    else:
        axis = 0 if name == "translate_x" else 1
        down, right = space.translate(height, width)
        made[:, axis, 2] = -np.trunc((right if axis == 0 else down) * part)
    return made
