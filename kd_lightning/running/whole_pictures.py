"""Pictures of any size for a network that answers for each pixel of a square: cut into squares, and the answers put together.

As in the run's evaluation, the shorter side is resized to the square's; of what is longer, as many squares are cut as
cover it, evenly spaced. Where they overlap, their answers are averaged.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kd_lightning.data.images.picture_files import grey_of


def squares_of(picture: np.ndarray, channels: int, size: int, scale: float) -> tuple[Tensor, list[tuple[int, int]]]:
    """Squares that cover a picture.

    Args:
        picture: (H, W, 3), uint8.
        channels: 1 makes it grey, or 3.
        size: pixels S of a square's side.
        scale: what becomes of white; above 1 pixels are whole numbers.

    Returns:
        (squares, channels, S, S), float32 from 0 to ``scale``, and where each lies in the resized picture: its first row
        and column.
    """
    height, width = picture.shape[:2]
    factor = size / min(height, width)
    across, down = (max(size, round(side * factor)) for side in (width, height))
    resized = np.array(Image.fromarray(picture).resize((across, down), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(resized).permute(2, 0, 1)
    pixels = (grey_of(pixels) if channels == 1 else pixels).float()
    if scale != 255:
        pixels = (pixels * scale / 255).round() if scale > 1 else pixels / 255 * scale
    places = [(top, left) for top in _starts(down, size) for left in _starts(across, size)]
    return torch.stack([pixels[:, top : top + size, left : left + size] for top, left in places]), places


def classes_of(answers: Tensor, places: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel of a picture.

    Args:
        answers: probabilities (squares, C, S, S).
        places: first row and column of each square.
        size: height and width of the picture.

    Returns:
        (height, width), int64.
    """
    side = answers.shape[-1]
    down, across = (max(place[axis] for place in places) + side for axis in (0, 1))
    total, count = answers.new_zeros(answers.shape[1], down, across), answers.new_zeros(down, across)
    for answer, (top, left) in zip(answers, places, strict=True):
        total[:, top : top + side, left : left + side] += answer
        count[top : top + side, left : left + side] += 1
    best, found = torch.empty(0), torch.zeros(size, dtype=torch.int64)
    for number, share in enumerate(
        total / count
    ):  # one class at a time: a photograph's pixels times all classes are much
        enlarged = F.interpolate(share[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        if not number:
            best = enlarged
            continue
        better = enlarged > best
        found[better], best = number, torch.where(better, enlarged, best)
    return found


def _starts(length: int, size: int) -> list[int]:
    """Where pieces of ``size`` begin that cover ``length``, evenly spaced."""
    pieces = -(-length // size)
    return [round(piece * (length - size) / max(1, pieces - 1)) for piece in range(pieces)]
