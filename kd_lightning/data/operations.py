"""What augmentation policies do to pictures: each operation on N of them at once, every one with a strength of its own.

Pictures are bytes of shape (N, C, H, W), and the arithmetic is that of whole numbers: the result is the same on every
device, and does not depend on which pictures are changed together. Definitions are torchvision's (``solarize``,
``posterize``, ``equalize`` and rotations give its bytes; where it rounds in float, the others differ by at most one).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE = 1000
"""Factors of brightness, contrast, colour and sharpness come in thousandths: 1000 leaves a picture as it is."""
_POINT = 16  # bits behind the point of a source position


def solarize(pixels: Tensor, thresholds: Tensor) -> Tensor:
    """Values from the threshold (N,) on are turned round: v becomes 255 - v."""
    levels = _levels(pixels)
    return _mapped(pixels, torch.where(levels >= _each(thresholds), 255 - levels, levels))


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Of each value the highest ``bits`` (N,), 1 to 8, are kept."""
    return _mapped(pixels, _levels(pixels) & (255 << (8 - _each(bits))))


def autocontrast(pixels: Tensor) -> Tensor:
    """Each channel is stretched to 0 to 255; one of a single value stays."""
    values, levels = pixels.flatten(2), _levels(pixels)
    low, high = (edge.long()[..., None] for edge in (values.amin(2), values.amax(2)))
    stretched = (levels - low) * 255 // (high - low).clamp_min(1)
    return _mapped(pixels, torch.where(high > low, stretched, levels))


def equalize(pixels: Tensor) -> Tensor:
    """Each channel's values are spread so that all are nearly equally frequent."""
    n, c = pixels.shape[:2]
    flat, levels = pixels.reshape(n * c, -1).long(), _levels(pixels)
    flat = flat + 256 * torch.arange(n * c, device=pixels.device)[:, None]
    counts = torch.bincount(flat.view(-1), minlength=n * c * 256).view(n, c, 256)
    last = torch.where(counts > 0, levels, -1).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    spread = (counts.cumsum(2) - counts + step // 2) // step.clamp_min(1)
    return _mapped(pixels, torch.where(step > 0, spread, levels))


def brightness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blended with black; ``factors`` (N,) in thousandths."""
    return _mapped(pixels, _levels(pixels) * _each(factors) // WHOLE)


def contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blended with the mean of its grey values."""
    grey, factor = grey_of(pixels), _each(factors)
    count = grey[0].numel()
    total = _each(grey.sum((1, 2, 3), dtype=torch.int64))
    return _mapped(pixels, (factor * _levels(pixels) * count + (WHOLE - factor) * total) // (WHOLE * count))


def colour(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blended with its grey picture; a grey one stays."""
    return pixels if pixels.shape[1] == 1 else _blended(pixels, grey_of(pixels), factors)


def sharpness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blended with a smoothed copy, but for the border."""
    if min(pixels.shape[2:]) <= 2:
        return pixels
    values = pixels.int()
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = values.clone()
    smooth[:, :, 1:-1, 1:-1] = (around + 4 * values[:, :, 1:-1, 1:-1] + 6) // 13
    return _blended(pixels, smooth, factors)


def moved(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Affine maps, the nearest pixel taken; black comes in from outside.

    ``matrices`` (N, 2, 3), float64: where the pixel (x, y, 1) of the result comes from, in pixels from the centre.
    """
    n, c, h, w = pixels.shape
    fixed = torch.round(matrices * (1 << _POINT)).long().view(n, 6, 1, 1).to(pixels.device)
    # twice the position, so that centres between pixels are whole numbers
    y, x = 2 * torch.arange(h, device=pixels.device)[:, None] - h + 1, 2 * torch.arange(w, device=pixels.device) - w + 1
    half, whole = 1 << _POINT, _POINT + 1
    column = (fixed[:, 0] * x + fixed[:, 1] * y + 2 * fixed[:, 2] + ((w - 1) << _POINT) + half) >> whole
    row = (fixed[:, 3] * x + fixed[:, 4] * y + 2 * fixed[:, 5] + ((h - 1) << _POINT) + half) >> whole
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    source = torch.where(inside, row * w + column, h * w).view(n, 1, h * w).expand(n, c, h * w)
    return F.pad(pixels.reshape(n, c, h * w), (0, 1)).gather(2, source).view(n, c, h, w)


def grey_of(pixels: Tensor) -> Tensor:
    """Grey values (N, 1, H, W) of pictures with one or three channels."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (channel.int() for channel in pixels.split(1, dim=1))
    return ((2989 * red + 5870 * green + 1140 * blue) // 10_000).to(torch.uint8)


def _levels(pixels: Tensor) -> Tensor:
    return torch.arange(256, device=pixels.device)


def _each(values: Tensor) -> Tensor:
    """A value a picture, to go with tables (N, C, 256)."""
    return values.view(-1, 1, 1)


def _mapped(pixels: Tensor, table: Tensor) -> Tensor:
    """Each value by its entry in a table, (N, C, 256) or (N, 1, 256), brought into 0 to 255."""
    n, c, h, w = pixels.shape
    table = table.clamp(0, 255).to(torch.uint8).expand(n, c, 256).reshape(-1)
    places = pixels.reshape(n * c, h * w).int()
    places += 256 * torch.arange(n * c, dtype=torch.int32, device=pixels.device)[:, None]
    return table.index_select(0, places.view(-1)).view(n, c, h, w)


def _blended(pixels: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    factor = factors.int().view(-1, 1, 1, 1)
    return ((factor * pixels.int() + (WHOLE - factor) * other.int()) // WHOLE).clamp_(0, 255).to(torch.uint8)
