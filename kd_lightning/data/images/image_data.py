"""Image files as a data set that a loader's threads read straight into the memory of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.data.images.crops import CentreCrop, RandomResizedCrop
from kd_lightning.data.images.decode import MAX_PIXELS, read_image, shown
from kd_lightning.data.loader.batch_memory import BatchMemory
from kd_lightning.data.samples import read_filled


class ImageData(Dataset):
    """Images in files, each a view of its picture cut and resized to a square.

    A sample is decoded, cropped, mirrored, cast and normalised while it lies in the processor's cache, and written to
    its place in the batch; nothing is left to be done for the batch as a whole.

    Args:
        files: N paths.
        targets: class numbers, int64 of shape (N,).
        crop: which part of a picture is shown.
        mean, std: per channel (three), of pixels in [0, 1].
        scaled_decode: decode a JPEG at 1/2, 1/4 or 1/8 where the crop still has the pixels for it, see
            :func:`~kd_lightning.data.images.decode.read_image`.
        as_bytes: inputs are the uint8 pixels, not normalised (:func:`normalise` does that on the device), and lie
            in memory with their channels last.
        max_pixels: larger images are refused.
        grey_white: which value of a deep grey picture is white, see there.
    """

    thread_safe = True

    def __init__(
        self,
        files: Sequence[str],
        targets: Tensor,
        crop: RandomResizedCrop | CentreCrop,
        mean: Sequence[float],
        std: Sequence[float],
        scaled_decode: bool = False,
        as_bytes: bool = False,
        max_pixels: int = MAX_PIXELS,
        grey_white: int | None = None,
    ) -> None:
        if len(files) != len(targets):
            raise ValueError(f"{len(files)} files and {len(targets)} targets: their numbers must be equal")
        self.files, self.targets, self.crop, self.mean, self.std = list(files), targets, crop, list(mean), list(std)
        self.scaled_decode, self.as_bytes, self.max_pixels = scaled_decode, as_bytes, max_pixels
        self.grey_white = grey_white
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """View 0 of one sample (what a plain DataLoader sees)."""
        inputs, target = self.read(torch.tensor([range(len(self))[index]]), 0)
        return inputs[0], target[0]

    def read(self, indices: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """Some samples in one view, read in this thread."""
        return read_filled(self, indices, view)

    def describe(self, index: int) -> str:
        """The sample's file."""
        return shown(self.files[index])

    def allocate(self, n: int) -> Tensor:
        """Memory for a batch: (n, 3, size, size)."""
        size = self.crop.size
        # Asked for where batches are consumed, in evaluation under inference mode; written to by threads that are not.
        with torch.inference_mode(False):
            if self.as_bytes:
                return self._memory.empty((n, size, size, 3), torch.uint8).permute(0, 3, 1, 2)
            return self._memory.empty((n, 3, size, size), torch.float32)

    def fill(self, buffers: Tensor, start: int, indices: Tensor, view: int, stop: Callable[[], bool]) -> None:
        """Write the samples ``indices`` at the places from ``start`` on."""
        self.fill_views([buffers], start, indices, [view], stop)

    def fill_views(
        self, buffers: Sequence[Tensor], start: int, indices: Tensor, views: Sequence[int], stop: Callable[[], bool]
    ) -> None:
        """Write them in each view into memory of its own; a picture is decoded once, or, with ``scaled_decode``, for each."""
        draws = zip(*(self.crop.draw(indices, view) for view in views), strict=True)
        for place, (index, drawn) in enumerate(zip(indices.tolist(), draws, strict=True), start):
            if stop():
                return
            read = None
            for memory, draw in zip(buffers, drawn, strict=True):
                if read is None or self.scaled_decode:
                    read = self._decoded(self.files[index], [draw] if self.scaled_decode else drawn)
                cut = self.crop.cut(*read, draw)
                if self.as_bytes:
                    memory[place].copy_(cut[0])
                else:
                    normalise(cut[0], self.mean, self.std, out=memory[place])

    def _decoded(self, file: str, draws: Sequence[Any]) -> tuple[Any, tuple[int, int]]:
        """A picture's pixels, as far down as some of the draws look, and its full size."""
        factor = partial(self.crop.factor, draw=draws[0]) if self.scaled_decode else None

        def rows(height: int, width: int) -> int:
            return max(self.crop.rows(height, width, draw) for draw in draws)

        return read_image(file, factor, self.max_pixels, rows, self.grey_white)

    def finish(self, buffers: Tensor, indices: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """The batch and its targets."""
        return buffers, self.targets[indices]


class PixelBatch(NamedTuple):
    """Inputs on their way to a device, still bytes: ``to(device)``, which Lightning calls, makes the models' inputs.

    Attributes:
        pixels: uint8 of shape (N, 3, H, W).
        mean, std: per channel, of pixels in [0, 1].
    """

    pixels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to(self, device: torch.device | str, **options: Any) -> Tensor:
        """The normalised inputs, float32 on ``device``. Copied asynchronously from pinned memory."""
        options.setdefault("non_blocking", self.pixels.is_pinned())
        return normalise(self.pixels.to(device, **options), self.mean, self.std)


class ImagePixels(ImageData):
    """The same images for a loader whose batches travel as bytes, see :class:`PixelBatch`."""

    def finish(self, buffers: Tensor, indices: Tensor, view: int) -> tuple[PixelBatch, Tensor]:
        """The batch, to be normalised where it is used, and its targets."""
        pixels, targets = super().finish(buffers, indices, view)
        return PixelBatch(pixels, tuple(self.mean), tuple(self.std)), targets


def normalise(
    pixels: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None, scale: float = 255
) -> Tensor:
    """``(pixels / scale - mean) / std`` per channel, float32, for pixels (..., C, H, W); contiguous if new."""
    if out is None:
        out = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    out.copy_(pixels)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        plane = out.select(-3, channel)
        torch.add(-m / s, plane, alpha=1 / (scale * s), out=plane)
    return out
