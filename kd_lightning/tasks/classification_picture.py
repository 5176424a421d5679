"""A picture of a few samples: what teacher and student make of them, as probabilities at the temperature side by side.

Drawn with PIL, in tens of milliseconds; a plotting library takes over a second, which a validation would feel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_lightning.batch import UNLABELLED

TEACHER, STUDENT = (43, 91, 168), (232, 119, 34)
RIGHT, WRONG, UNKNOWN = (27, 128, 62), (200, 40, 40), (110, 114, 120)
INK, SOFT, LINE, CARD, PAPER = (28, 32, 38), (110, 114, 120), (226, 229, 234), (247, 248, 250), (255, 255, 255)

MOST_CLASSES = 10
"""Classes with bars; of more classes only those to which teacher or student give most are shown."""

CELL_WIDTH, CELL_HEIGHT, GAP, MARGIN, HEADER = 372, 316, 16, 20, 36
PICTURE, PAD = 128, 14


def sample_picture(
    images: Tensor | None,
    target: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Image.Image:
    """Draw k samples in a grid, each with its image, its predictions and its bars.

    Args:
        images: shape (k, C, H, W), normalised; one channel is drawn grey, three as RGB, of others the mean. None or any
            other shape: no images.
        target: shape (k,), class numbers; -1 where no label is known.
        student_logits: shape (k, classes).
        teacher_logits: shape (k, classes).
        temperature: softens both, > 0; None is 1.
        class_names: one a class; None shows numbers.
        mean: per channel, what the normalisation subtracted; None: 0.
        std: per channel, what it divided by; None: 1.
    """
    temperature = 1.0 if temperature is None else float(temperature)
    teacher, student = (_probabilities(logits, temperature) for logits in (teacher_logits, student_logits))
    count, classes = student.shape
    names = [str(name) for name in class_names] if class_names is not None else [str(i) for i in range(classes)]
    pictures = _pictures(images, mean, std) if images is not None and images.ndim == 4 else [None] * count
    top = _axis_top(max(teacher.max(), student.max()) if count else 1.0)
    columns = max(1, min(3, count))
    rows = max(1, -(-count // columns))
    width = 2 * MARGIN + columns * CELL_WIDTH + (columns - 1) * GAP
    height = HEADER + rows * CELL_HEIGHT + (rows - 1) * GAP + 2 * MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    _header(draw, width, temperature)
    for i in range(count):
        left = MARGIN + (i % columns) * (CELL_WIDTH + GAP)
        upper = MARGIN + HEADER + (i // columns) * (CELL_HEIGHT + GAP)
        sample = _Sample(pictures[i], int(target[i]), teacher[i], student[i], names)
        _cell(canvas, draw, left, upper, sample, top)
    return canvas


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass
class _Sample:
    image: Image.Image | None
    target: int
    teacher: np.ndarray
    student: np.ndarray
    names: list[str]

    @property
    def shown(self) -> list[int]:
        """Classes with bars: all in order, or those that matter most, the most probable first."""
        if len(self.teacher) <= MOST_CLASSES:
            return list(range(len(self.teacher)))
        weight = self.teacher + self.student
        if self.target >= 0:
            weight[self.target] += 2  # the true class is always among them
        chosen = np.argsort(-weight, kind="stable")[:MOST_CLASSES]
        return sorted(chosen.tolist(), key=lambda c: -max(self.teacher[c], self.student[c]))


def _header(draw: ImageDraw.ImageDraw, width: int, temperature: float) -> None:
    middle = MARGIN + HEADER // 2 - 6
    draw.text((MARGIN, middle), f"softmax(z / T),  T = {temperature:g}", INK, _font(19), anchor="lm")
    right = width - MARGIN
    for name, colour in (("student", STUDENT), ("teacher", TEACHER)):
        right -= round(draw.textlength(name, _font(17)))
        draw.text((right, middle), name, INK, _font(17), anchor="lm")
        right -= 22
        draw.rectangle((right, middle - 7, right + 14, middle + 7), fill=colour)
        right -= 22


def _cell(canvas: Image.Image, draw: ImageDraw.ImageDraw, left: int, upper: int, sample: _Sample, top: float) -> None:
    box = (left, upper, left + CELL_WIDTH - 1, upper + CELL_HEIGHT - 1)
    draw.rectangle(box, fill=CARD, outline=LINE)
    text_left = left + PAD
    if sample.image is not None:
        x = left + PAD + (PICTURE - sample.image.width) // 2
        y = upper + PAD + (PICTURE - sample.image.height) // 2
        canvas.paste(sample.image, (x, y))
        draw.rectangle((x - 1, y - 1, x + sample.image.width, y + sample.image.height), outline=LINE)
        text_left += PICTURE + 16
    _words(draw, text_left, upper + PAD, left + CELL_WIDTH - PAD, sample)
    _bars(draw, left + PAD, upper + PAD + PICTURE + 20, left + CELL_WIDTH - PAD, upper + CELL_HEIGHT - 30, sample, top)


def _words(draw: ImageDraw.ImageDraw, left: int, upper: int, right: int, sample: _Sample) -> None:
    """Label, the two predictions coloured by whether they are right, and how far apart the two models are."""
    rows = [("label", "?" if sample.target == UNLABELLED else sample.names[sample.target], INK, "")]
    for name, probs in (("teacher", sample.teacher), ("student", sample.student)):
        predicted = int(probs.argmax())
        right_or_wrong = RIGHT if predicted == sample.target else WRONG
        colour = UNKNOWN if sample.target == UNLABELLED else right_or_wrong
        rows.append((name, sample.names[predicted], colour, f"{100 * probs[predicted]:.0f} %"))
    rows.append(("KL", f"{_divergence(sample.teacher, sample.student):.2f}", SOFT, ""))
    column = left + round(draw.textlength("student", _font(16))) + 12
    for i, (name, value, colour, share) in enumerate(rows):
        y = upper + 14 + i * 33
        draw.text((left, y), name, SOFT, _font(16), anchor="lm")
        share_left = right
        if share:
            draw.text((right, y), share, SOFT, _font(15), anchor="rm")
            share_left = right - round(draw.textlength("100 %", _font(15))) - 8
        room = share_left - column
        font = next((f for f in (_font(19), _font(16)) if draw.textlength(value, f) <= room), _font(14))
        draw.text((column, y), _fitted(draw, value, font, room), colour, font, anchor="lm")


def _bars(
    draw: ImageDraw.ImageDraw, left: int, upper: int, right: int, lower: int, sample: _Sample, top: float
) -> None:
    """Bars of both models for each class shown, ``top`` being the probability at the upper edge."""
    for value in (top / 2, top):
        y = round(lower - (lower - upper) * value / top)
        draw.line((left, y, right, y), fill=LINE)
        draw.text((left, y - 2), f"{value:g}", SOFT, _font(12), anchor="ls")
    left += 24
    shown = sample.shown
    slot = (right - left) / len(shown)
    bar = max(2, min(22, int(slot * 0.38)))
    words = [_fitted(draw, sample.names[number], _font(13), slot - 3, dots=False) for number in shown]
    if len(set(words)) < len(words):  # cut to the same letters: numbers tell them apart
        words = [str(number) for number in shown]
    for i, number in enumerate(shown):
        centre = round(left + (i + 0.5) * slot)
        for probs, colour, x in ((sample.teacher, TEACHER, centre - bar), (sample.student, STUDENT, centre + 1)):
            y = round(lower - (lower - upper) * float(probs[number]) / top)
            draw.rectangle((x, min(y, lower - 1), x + bar - 1, lower), fill=colour)
        ink = INK if number == sample.target else SOFT
        draw.text((centre, lower + 7), words[i], ink, _font(13), anchor="mt")
        if number == sample.target:
            draw.rectangle((centre - bar, lower + 24, centre + bar, lower + 25), fill=INK)
    draw.line((left - 24, lower + 1, right, lower + 1), fill=SOFT)


def _pictures(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> list[Image.Image]:
    """Undo the normalisation and scale to PICTURE pixels; small images by whole factors, so that pixels stay sharp."""
    images = images.detach().float().cpu()
    channels = images.shape[1]
    scale = torch.tensor(std if std is not None else [1.0]).float().reshape(-1, 1, 1)
    shift = torch.tensor(mean if mean is not None else [0.0]).float().reshape(-1, 1, 1)
    images = images * scale + shift
    if channels not in (1, 3):
        images = images.mean(1, keepdim=True)
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    made = []
    for array in pixels:
        image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).convert("RGB")
        longest = max(image.size)
        factor = PICTURE // longest if longest * 2 <= PICTURE else PICTURE / longest
        width, height = (max(1, round(side * factor)) for side in image.size)
        made.append(
            image.resize((width, height), Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS)
        )
    return made


def _probabilities(logits: Tensor, temperature: float) -> np.ndarray:
    return torch.softmax(logits.detach().float().cpu() / temperature, dim=-1).numpy()


def _divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    tiny = np.finfo(np.float32).tiny
    return float((teacher * (np.log(teacher + tiny) - np.log(student + tiny))).sum())


def _axis_top(largest: float) -> float:
    """The same scale for all samples of a picture: flat distributions at high T shall still be visible."""
    return next((top for top in (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if largest <= top), 1.0)


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float, dots: bool = True) -> str:
    """The text, cut to a width in pixels."""
    if draw.textlength(text, font) <= width:
        return text
    end = "\u2026" if dots else ""
    while text and draw.textlength(text + end, font) > width:
        text = text[:-1]
    return text + end


@lru_cache(maxsize=16)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
