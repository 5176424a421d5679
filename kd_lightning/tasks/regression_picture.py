"""A picture of a regression: predictions of student and teacher against the truth, and the student's against the teacher's.

Drawn with PIL, in tens of milliseconds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_lightning.tasks.classification_picture import INK, LINE, PAPER, SOFT, STUDENT, TEACHER

SIDE, GAP, LEFT, BOTTOM, TOP = 420, 84, 78, 64, 44
DOT = 3


def scatter(
    truth: Tensor, student: Tensor, teacher: Tensor | None = None, deviation: Tensor | None = None, unit: str = ""
) -> Image.Image:
    """Two panels, in the data's units: against the truth, and (with a teacher) student against teacher.

    Args:
        truth: shape (N,); nan where it is not known.
        student: its predictions, (N,).
        teacher: its predictions, (N,), or None.
        deviation: the student's predicted standard deviation, (N,), drawn as a line of two up and down; None: none.
        unit: of the values.
    """
    y, s = _numbers(truth), _numbers(student)
    t = None if teacher is None else _numbers(teacher)
    panels = 1 if t is None else 2
    canvas = Image.new("RGB", (LEFT + panels * SIDE + (panels - 1) * GAP + 24, TOP + SIDE + BOTTOM), PAPER)
    draw = ImageDraw.Draw(canvas)
    shown = [values for values in (y, s, t) if values is not None]
    low, high = _limits(np.concatenate(shown))
    said = f" in {unit}" if unit else ""
    against_truth = _Panel(draw, LEFT, low, high, f"truth{said}", f"prediction{said}")
    if deviation is not None:
        against_truth.bars(y, s, 2 * _numbers(deviation))
    if t is not None:
        against_truth.dots(y, t, TEACHER)
    against_truth.dots(y, s, STUDENT)
    against_truth.legend(["teacher", "student"] if t is not None else ["student"])
    if t is not None:
        against_teacher = _Panel(draw, LEFT + SIDE + GAP, low, high, f"teacher{said}", f"student{said}")
        against_teacher.dots(t, s, STUDENT)
    return canvas


class _Panel:
    """A square with equal axes and its diagonal."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: int, low: float, high: float, below: str, beside: str) -> None:
        self.draw, self.left, self.low, self.high = draw, left, low, high
        draw.rectangle((left, TOP, left + SIDE, TOP + SIDE), outline=LINE)
        for value in _ticks(low, high):
            x, y = self._place(value, value)
            draw.line((x, TOP, x, TOP + SIDE), fill=LINE)
            draw.line((left, y, left + SIDE, y), fill=LINE)
            draw.text((x, TOP + SIDE + 6), f"{value:g}", SOFT, _font(13), anchor="mt")
            draw.text((left - 8, y), f"{value:g}", SOFT, _font(13), anchor="rm")
        draw.line((left, TOP + SIDE, left + SIDE, TOP), fill=SOFT)
        draw.text((left + SIDE // 2, TOP + SIDE + 30), below, INK, _font(16), anchor="mt")
        draw.text((left, TOP - 12), beside, INK, _font(16), anchor="ls")

    def dots(self, across: np.ndarray, up: np.ndarray, colour: tuple[int, int, int]) -> None:
        for x, y in self._places(across, up):
            self.draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=colour)

    def bars(self, across: np.ndarray, up: np.ndarray, half: np.ndarray) -> None:
        for (x, lower), (_, upper) in zip(
            self._places(across, up - half), self._places(across, up + half), strict=True
        ):
            self.draw.line((x, max(upper, TOP), x, min(lower, TOP + SIDE)), fill=(246, 205, 170))

    def legend(self, names: list[str]) -> None:
        right = self.left + SIDE
        for name in reversed(names):
            right -= round(self.draw.textlength(name, _font(15)))
            self.draw.text((right, TOP - 12), name, INK, _font(15), anchor="ls")
            self.draw.ellipse(
                (right - 16, TOP - 22, right - 8, TOP - 14), fill=STUDENT if name == "student" else TEACHER
            )
            right -= 30

    def _places(self, across: np.ndarray, up: np.ndarray) -> list[tuple[int, int]]:
        known = np.isfinite(across) & np.isfinite(up)
        return [self._place(float(x), float(y)) for x, y in zip(across[known], up[known], strict=True)]

    def _place(self, x: float, y: float) -> tuple[int, int]:
        scale = SIDE / (self.high - self.low)
        return round(self.left + (x - self.low) * scale), round(TOP + SIDE - (y - self.low) * scale)


def _limits(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    power = 10 ** np.floor(np.log10(rough))
    step = float(next(k * power for k in (1, 2, 5, 10) if k * power >= rough))
    first = int(np.ceil(low / step))
    return [float(f"{k * step:.6g}") for k in range(first, int(np.floor(high / step)) + 1)]


def _numbers(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().to(torch.float64).cpu())


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
