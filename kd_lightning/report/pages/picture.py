"""The heatmap as a PNG, drawn with Pillow: for papers, chats and TensorBoard's image tab, without a browser."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from kd_lightning.metrics import show
from kd_lightning.report.charts import heatmap
from kd_lightning.report.charts.theme import INK, MUTED, mixed, takes_dark_ink
from kd_lightning.report.study.factors import format_value
from kd_lightning.report.study.grid import Plan, plan
from kd_lightning.report.study.study import Cell, Study

GAP, BOTTOM = 4, 58
BACKGROUND = "#ffffff"


@dataclass(frozen=True)
class Size:
    """Measures in layout units; ``scale`` is the number of pixels for each."""

    scale: int
    width: int  # of a cell
    height: int
    left: int
    top: int
    mean: int  # font sizes
    small: int
    wordy: bool  # std, "vs alone" and a caption, or only mean and difference


PAPER = Size(scale=2, width=116, height=58, left=84, top=82, mean=16, small=11, wordy=True)
"""For papers and chats: sharp on dense screens."""
THUMBNAIL = Size(scale=1, width=56, height=48, left=58, top=36, mean=15, small=12, wordy=False)
"""For TensorBoard's image cards, about 290 pixels wide, which shrink anything larger without smoothing."""


def heatmap_png(
    study: Study, metric: str | None = None, x: str | None = None, y: str | None = None, size: Size = PAPER
) -> bytes:
    """The heatmap over two swept keys (one row for one key, one cell for none), panels below each other, as PNG."""
    metric = metric or study.test_metric
    layout = plan(study, x, y)
    grids = (
        [(panel.title, panel.cells) for panel in layout.panels] if layout else [("", [[c] for c in study.cells[:1]])]
    )
    columns = max((len(row) for _, grid in grids for row in grid), default=1)
    heights = [len(grid) * size.height + BOTTOM + (24 if title else 0) for title, grid in grids]
    width = size.left + max(columns * size.width, 420 if size.wordy else 216) + (20 if size.wordy else 8)
    image = Image.new("RGB", (width * size.scale, (size.top + sum(heights)) * size.scale), BACKGROUND)
    pen = _Pen(image, size)
    pen.text(16, 12, f"{study.title}: {study.title_of(metric)}{_in_brackets(study, metric)}", 15, INK, bold=True)
    for i, line in enumerate(_caption(study, metric) if size.wordy else []):
        pen.text(16, 36 + 17 * i, line, 11, MUTED)
    top = size.top
    for (title, grid), height in zip(grids, heights, strict=True):
        _draw_grid(pen, study, metric, layout, title, grid, top)
        top += height
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _in_brackets(study: Study, metric: str) -> str:
    unit = show.unit(study.reads(metric)).strip()
    return f" [{unit}]" if unit else ""


def _caption(study: Study, metric: str) -> list[str]:
    lines = [f"mean ± std over seeds; frame: chosen by {study.val_metric}"]
    if heatmap.has_gains(study, metric):
        lines.append("colour and words: against the student alone; dot: holds at 5 % (Holm)")
    return lines


def _draw_grid(pen: _Pen, study: Study, metric: str, layout: Plan | None, title: str, grid, top: int) -> None:
    if title:
        pen.text(pen.size.left, top, title, 12, MUTED)
        top += 24
    limits = heatmap.shade_range(study, metric)
    rows = grid[::-1]  # small values at the bottom, as on an axis
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            _draw_cell(pen, study, metric, cell, pen.size.left + j * pen.size.width, top + i * pen.size.height, limits)
        if layout and layout.y:
            value = format_value(layout.y.values[len(rows) - 1 - i])
            pen.text(
                pen.size.left - 12, top + i * pen.size.height + pen.size.height / 2 - 8, value, 12, INK, anchor="right"
            )
    bottom = top + len(rows) * pen.size.height
    if layout:
        for j, value in enumerate(layout.x.values):
            pen.text(
                pen.size.left + (j + 0.5) * pen.size.width, bottom + 6, format_value(value), 12, INK, anchor="middle"
            )
        pen.text(
            pen.size.left + len(layout.x.values) * pen.size.width / 2,
            bottom + 28,
            layout.x.label,
            12,
            MUTED,
            anchor="middle",
        )
        if layout.y:
            pen.sideways(14 if pen.size.wordy else 2, top + len(rows) * pen.size.height / 2, layout.y.label, 12, MUTED)


def _draw_cell(pen: _Pen, study: Study, metric: str, cell: Cell | None, left: float, top: float, limits) -> None:
    box = (left + GAP / 2, top + GAP / 2, left + pen.size.width - GAP / 2, top + pen.size.height - GAP / 2)
    said = heatmap.cell_texts(study, cell, metric) if cell else None
    if cell is None or said is None:
        pen.box(box, BACKGROUND, "#e5e8ec", 1)
        return
    ends, share = heatmap.fill(heatmap.shade(study, cell, metric), limits)
    fill = mixed(*ends, share)
    ink = INK if takes_dark_ink(fill) else BACKGROUND
    chosen = cell is study.chosen
    pen.box(box, fill, INK if chosen else fill, 2.5 if chosen else 1)
    size = pen.size
    spread = f" ± {said['std']}" if said["std"] and size.wordy else ""
    middle, centre = left + size.width / 2, top + size.height / 2
    lift = 9 if said["difference"] else 0
    start = middle - (pen.width(said["mean"], size.mean, True) + pen.width(spread, size.small)) / 2
    pen.text(start, centre - 10 - lift, said["mean"], size.mean, ink, bold=True)
    pen.text(start + pen.width(said["mean"], size.mean, True), centre - 6 - lift, spread, size.small, ink)
    if said["difference"]:
        text = said["words" if size.wordy else "difference"]
        bold = not size.wordy  # so that a sign outlives TensorBoard's shrinking
        pen.text(middle - (5 if said["mark"] else 0), centre + 5, text, size.small, ink, bold, "middle")
        if said["mark"]:
            pen.dot(middle + pen.width(text, size.small, bold) / 2 + 3, centre + 12, 3, ink)


class _Pen:
    """Draws in units of the layout on an image ``size.scale`` times as large."""

    def __init__(self, image: Image.Image, size: Size) -> None:
        self.image, self.size = image, size
        self.draw = ImageDraw.Draw(image)
        self.fonts: dict[tuple[float, bool], tuple[ImageFont.FreeTypeFont, bool]] = {}

    def font(self, size: float, bold: bool = False) -> tuple[ImageFont.FreeTypeFont, bool]:
        """A font and whether it has the signs that the embedded fallback lacks (a true minus among them)."""
        if (size, bold) not in self.fonts:
            self.fonts[size, bold] = _load_font(round(size * self.size.scale), bold)
        return self.fonts[size, bold]

    def text(self, x: float, y: float, text: str, size: float, colour: str, bold: bool = False, anchor: str = "left"):
        font, complete = self.font(size, bold)
        shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor] * self.width(text, size, bold)
        self.draw.text(
            ((x - shift) * self.size.scale, y * self.size.scale), _plain(text, complete), font=font, fill=colour
        )

    def sideways(self, x: float, y: float, text: str, size: float, colour: str) -> None:
        font, complete = self.font(size)
        strip = Image.new(
            "RGB",
            (round(self.width(text, size) * self.size.scale) + 4, round(size * 1.6 * self.size.scale)),
            BACKGROUND,
        )
        ImageDraw.Draw(strip).text((0, 0), _plain(text, complete), font=font, fill=colour)
        strip = strip.rotate(90, expand=True)
        self.image.paste(strip, (round(x * self.size.scale), round(y * self.size.scale - strip.height / 2)))

    def width(self, text: str, size: float, bold: bool = False) -> float:
        font, complete = self.font(size, bold)
        return font.getlength(_plain(text, complete)) / self.size.scale

    def box(self, box: tuple[float, ...], fill: str, outline: str, width: float) -> None:
        scaled = [value * self.size.scale for value in box]
        self.draw.rounded_rectangle(
            scaled, radius=5 * self.size.scale, fill=fill, outline=outline, width=round(width * self.size.scale)
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self.draw.ellipse([(v + d * radius) * self.size.scale for d in (-1, 1) for v in (x, y)], fill=colour)


def _load_font(pixels: int, bold: bool) -> tuple[ImageFont.FreeTypeFont, bool]:
    names = (
        ("DejaVuSans-Bold.ttf", "Arial Bold.ttf", "arialbd.ttf")
        if bold
        else ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf")
    )
    for name in names:
        try:
            return ImageFont.truetype(name, pixels), True
        except OSError:
            continue
    return ImageFont.load_default(size=pixels), False


def _plain(text: str, complete: bool) -> str:
    return text if complete else text.replace("\u2212", "-").replace("\u2013", "-").replace("\u00d7", "x")
