"""A picture of a clustering: samples as points in the plane, once coloured by the teacher's and once by the student's clusters.

The plane is that of the samples' two main directions. A teacher's cluster has the colour of the student's cluster that it
shares most samples with, so that what differs in colour differs in substance.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, MARGIN, HEADER, RADIUS = 420, 20, 34, 3
INK, PAPER, CARD = (28, 32, 38), (255, 255, 255), (247, 248, 250)


def cluster_picture(
    samples: Tensor | None, student_logits: Tensor, teacher_logits: Tensor | None
) -> Image.Image | None:
    """Two panels side by side, the teacher's and the student's; one without a teacher. None with fewer than three samples.

    Args:
        samples: rows (N, D) that are projected; None: the student's log-probabilities.
        student_logits: shape (N, K).
        teacher_logits: shape (N, K'), or None.
    """
    rows = torch.log_softmax(student_logits.detach().float(), 1) if samples is None else samples
    student = student_logits.argmax(1).cpu()
    panels = [Panel("student", rows, student)]
    if teacher_logits is not None:
        panels.insert(0, Panel("teacher", rows, matched_numbers(teacher_logits.argmax(1).cpu(), student)))
    return panels_side_by_side(panels)


class Panel(NamedTuple):
    """One projection: rows (N, D), the groups (N,) by which they are coloured, and what these are."""

    title: str
    rows: Tensor
    groups: Tensor
    what: str = "clusters"


def panels_side_by_side(panels: Sequence[Panel]) -> Image.Image | None:
    """Each panel's rows in the plane of their two main directions; None with fewer than three rows, or of one value."""
    if any(len(panel.rows) < 3 or panel.rows.shape[1] < 2 for panel in panels):
        return None
    colours = palette(1 + max(int(panel.groups.max()) for panel in panels))
    picture = Image.new("RGB", (MARGIN + len(panels) * (SIDE + MARGIN), HEADER + SIDE + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, panel in enumerate(panels):
        left = MARGIN + number * (SIDE + MARGIN)
        draw.rectangle((left, HEADER, left + SIDE, HEADER + SIDE), fill=CARD)
        text = f"{panel.title}: {len(panel.groups.unique())} {panel.what}, {len(panel.rows)} samples"
        draw.text((left, 10), text, fill=INK, font=ImageFont.load_default(15))
        places = main_plane(panel.rows) * (SIDE - 16) + 8
        for (x, y), group in zip(places.tolist(), panel.groups.tolist(), strict=True):
            x, y = left + x, HEADER + y
            draw.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=colours[group])
    return picture


def main_plane(rows: Tensor) -> Tensor:
    """The rows (N, D) in the plane of their two main directions, scaled to [0, 1]: (N, 2)."""
    rows = rows.detach().float().cpu()
    rows = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(rows, full_matrices=False)
    places = rows @ directions[:2].T
    low, high = places.amin(0), places.amax(0)
    return (places - low) / (high - low).clamp_min(1e-12)


def matched_numbers(groups: Tensor, like: Tensor) -> Tensor:
    """The groups (N,) renumbered so that as many samples as possible have the number that ``like`` gives them."""
    from scipy.optimize import linear_sum_assignment

    size = 1 + int(max(groups.max(), like.max()))
    counts = torch.bincount(groups * size + like, minlength=size * size).reshape(size, size)
    _, numbers = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(np.asarray(numbers))[groups]


def palette(count: int) -> list[tuple[int, int, int]]:
    """So many colours that can be told apart, hues spread evenly in turns of lightness."""
    made = []
    for number in range(count):
        red, green, blue = colorsys.hls_to_rgb(number / count, (0.45, 0.62, 0.34)[number % 3], 0.75)
        made.append((round(255 * red), round(255 * green), round(255 * blue)))
    return made
