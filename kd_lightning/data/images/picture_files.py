"""Pictures in files as the raw pixels of a run's samples: what evaluation made of them, before it normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.images.crops import CentreCrop
from kd_lightning.data.images.decode import MAX_PIXELS
from kd_lightning.data.images.image_data import ImageData

_LUMA = (19595, 38470, 7471)  # of red, green, blue, in 1/65536: Pillow's; grey stays what it is


class PictureFiles:
    """Files, each of which can be read as pixels (channels, size, size), from 0 to ``scale``.

    Args:
        files: paths.
        channels: 1 or 3.
        size: pixels of a side.
        scale: what becomes of white, > 0. Above 1 pixels are whole numbers, as they were in the run's data.
        reading: the run's ``reading``: crop and decoding of a data set of files. Empty: a picture of ``size`` is taken as
            it is, another's shorter side is resized to that and its middle cut out.

    Attributes:
        resized: a picture was of another size, and the run's data did not say what becomes of such.
    """

    def __init__(
        self, files: Sequence[str], channels: int, size: int, scale: float, reading: Mapping[str, Any]
    ) -> None:
        self.channels, self.scale = channels, scale
        crop = CentreCrop(reading["size"], reading["resize"]) if reading else _AsItIs(size)
        self._crop = crop
        self._images = ImageData(
            files,
            torch.zeros(len(files), dtype=torch.long),
            crop,
            mean=(),
            std=(),
            scaled_decode=reading.get("decode") == "scaled",
            as_bytes=True,
            max_pixels=reading.get("max_pixels") or MAX_PIXELS,
            grey_white=reading.get("grey_white"),
        )

    @property
    def resized(self) -> bool:
        return isinstance(self._crop, _AsItIs) and self._crop.resized

    def read(self, index: int) -> Tensor:
        """One picture's pixels, float32; safe in threads.

        Raises:
            ImageError: the file cannot be decoded.
        """
        pixels = self._images[index][0].to(torch.float32)
        if self.channels == 1:
            pixels = grey_of(pixels).to(torch.float32)
        if self.scale == 255:
            return pixels
        scaled = pixels * (self.scale / 255)
        return scaled.round() if self.scale > 1 else scaled


def grey_of(pixels: Tensor) -> Tensor:
    """Whole pixels (3, H, W) as grey (1, H, W), int64, as Pillow makes it; grey stays what it is."""
    red, green, blue = pixels.to(torch.int64)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue + 0x8000 >> 16)[None]


class _AsItIs(CentreCrop):
    """The whole of a square picture of the right size; the middle of any other, which is remembered."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)
        self.resized = False

    def cut(self, pixels: np.ndarray, full: tuple[int, int], draw: None) -> Tensor:
        self.resized = self.resized or full != (self.size, self.size)
        return super().cut(pixels, full, draw)
