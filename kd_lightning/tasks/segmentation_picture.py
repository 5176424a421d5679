"""A picture of a segmentation: for each sample the picture, the true mask, the teacher's and the student's, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.tasks.clustering_picture import palette

CELL, GAP, HEADER, LEGEND, ACROSS = 128, 10, 26, 20, 132
INK, PAPER, FIRST, NOTHING = (28, 32, 38), (255, 255, 255), (52, 56, 62), (255, 255, 255)


def mask_picture(
    images: Tensor,
    target: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Image.Image:
    """A row a sample.

    Args:
        images: shape (N, channels, H, W), as the models take them.
        target: shape (N, H, W); pixels without a label are white.
        student_logits, teacher_logits: shape (N, C, H, W); no column without a teacher.
        class_names: for the legend; None: the numbers.
        mean, std: per channel, by which the images were normalised; None: they are stretched to black and white.
    """
    classes = student_logits.shape[1]
    colours = class_colours(classes)
    columns = [("picture", _pixels(images, mean, std)), ("truth", _painted(target, colours))]
    if teacher_logits is not None:
        columns.append(("teacher", _painted(teacher_logits.argmax(1), colours)))
    columns.append(("student", _painted(student_logits.argmax(1), colours)))
    count, width = len(images), GAP + len(columns) * (CELL + GAP)
    names = [str(name) for name in class_names] if class_names is not None else [str(k) for k in range(classes)]
    shown = names[: len(colours)][:40]
    across = max(1, width // ACROSS)
    height = HEADER + count * (CELL + GAP) + LEGEND * -(-len(shown) // across) + GAP
    picture = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for number, (title, cells) in enumerate(columns):
        left = GAP + number * (CELL + GAP)
        draw.text((left, 6), title, fill=INK, font=font)
        for row, cell in enumerate(cells):
            drawn = Image.fromarray(cell).resize((CELL, CELL), Image.Resampling.NEAREST)
            picture.paste(drawn, (left, HEADER + row * (CELL + GAP)))
    top = HEADER + count * (CELL + GAP)
    for number, name in enumerate(shown):
        x, y = GAP + (number % across) * ACROSS, top + (number // across) * LEGEND
        draw.rectangle((x, y + 3, x + 11, y + 14), fill=tuple(int(value) for value in colours[number]))
        draw.text((x + 17, y), name[:16], fill=INK, font=font)
    return picture


def class_colours(count: int) -> np.ndarray:
    """A colour for each class, (count, 3), uint8; the first, mostly the background, is dark."""
    return np.array([FIRST, *palette(max(1, count - 1))][:count], dtype=np.uint8)


def _painted(classes: Tensor, colours: np.ndarray) -> list[np.ndarray]:
    numbers = classes.detach().cpu().numpy()
    painted = colours[np.clip(numbers, 0, len(colours) - 1)]
    painted[numbers == UNLABELLED] = NOTHING
    return list(painted)


def _pixels(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> list[np.ndarray]:
    """Images as (H, W, 3), uint8."""
    values = images.detach().float().cpu()
    if mean is not None and std is not None and len(mean) == values.shape[1]:
        values = values * torch.tensor(list(std)).view(1, -1, 1, 1) + torch.tensor(list(mean)).view(1, -1, 1, 1)
    else:
        low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
        values = (values - low) / (high - low).clamp_min(1e-12)
    values = values[:, :3] if values.shape[1] >= 3 else values[:, :1].expand(-1, 3, -1, -1)
    return list((values.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy())
