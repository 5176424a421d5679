"""The heatmap as a PNG, drawn with Pillow: for papers, chats and TensorBoard's image tab, without a browser."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from kd_lightning.report import heatmap, metrics
from kd_lightning.report.collect import Cell, Study
from kd_lightning.report.factors import format_value
from kd_lightning.report.grid import Plan, plan
from kd_lightning.report.theme import INK, MUTED, mixed, takes_dark_ink

SCALE = 2  # pixels for each unit below: sharp on dense screens
CELL_WIDTH, CELL_HEIGHT, GAP, LEFT, TOP, BOTTOM = 116, 58, 4, 84, 82, 58
BACKGROUND = "#ffffff"


def heatmap_png(study: Study, metric: str | None = None, x: str | None = None, y: str | None = None) -> bytes:
    """The heatmap over two swept keys (one row for one key, one cell for none), panels below each other, as PNG."""
    metric = metric or study.test_metric
    layout = plan(study, x, y)
    grids = (
        [(panel.title, panel.cells) for panel in layout.panels] if layout else [("", [[c] for c in study.cells[:1]])]
    )
    columns = max((len(row) for _, grid in grids for row in grid), default=1)
    heights = [len(grid) * CELL_HEIGHT + BOTTOM + (24 if title else 0) for title, grid in grids]
    width = LEFT + max(columns * CELL_WIDTH, 420) + 20
    image = Image.new("RGB", (width * SCALE, (TOP + sum(heights)) * SCALE), BACKGROUND)
    pen = _Pen(image)
    pen.text(16, 12, f"{study.title}: {metric}{' [%]' if metrics.unit(metric) else ''}", 15, INK, bold=True)
    for i, line in enumerate(_caption(study, metric)):
        pen.text(16, 36 + 17 * i, line, 11, MUTED)
    top = TOP
    for (title, grid), height in zip(grids, heights, strict=True):
        _draw_grid(pen, study, metric, layout, title, grid, top)
        top += height
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _caption(study: Study, metric: str) -> list[str]:
    lines = [f"mean ± std over seeds; frame: chosen by {study.val_metric}"]
    if heatmap.has_gains(study, metric):
        lines.append("colour: difference to the student alone; dot: 95 % CI excludes 0")
    return lines


def _draw_grid(pen: _Pen, study: Study, metric: str, layout: Plan | None, title: str, grid, top: int) -> None:
    if title:
        pen.text(LEFT, top, title, 12, MUTED)
        top += 24
    limits = heatmap.shade_range(study, metric)
    rows = grid[::-1]  # small values at the bottom, as on an axis
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            _draw_cell(pen, study, metric, cell, LEFT + j * CELL_WIDTH, top + i * CELL_HEIGHT, limits)
        if layout and layout.y:
            value = format_value(layout.y.values[len(rows) - 1 - i])
            pen.text(LEFT - 12, top + i * CELL_HEIGHT + CELL_HEIGHT / 2 - 8, value, 12, INK, anchor="right")
    bottom = top + len(rows) * CELL_HEIGHT
    if layout:
        for j, value in enumerate(layout.x.values):
            pen.text(LEFT + (j + 0.5) * CELL_WIDTH, bottom + 6, format_value(value), 12, INK, anchor="middle")
        pen.text(LEFT + len(layout.x.values) * CELL_WIDTH / 2, bottom + 28, layout.x.label, 12, MUTED, anchor="middle")
        if layout.y:
            pen.sideways(14, top + len(rows) * CELL_HEIGHT / 2, layout.y.label, 12, MUTED)


def _draw_cell(pen: _Pen, study: Study, metric: str, cell: Cell | None, left: float, top: float, limits) -> None:
    box = (left + GAP / 2, top + GAP / 2, left + CELL_WIDTH - GAP / 2, top + CELL_HEIGHT - GAP / 2)
    said = heatmap.cell_texts(study, cell, metric) if cell else None
    if cell is None or said is None:
        pen.box(box, BACKGROUND, "#e5e8ec", 1)
        return
    ends, share = heatmap.fill(heatmap.shade(study, cell, metric), limits)
    fill = mixed(*ends, share)
    ink = INK if takes_dark_ink(fill) else BACKGROUND
    chosen = cell is study.chosen
    pen.box(box, fill, INK if chosen else fill, 2.5 if chosen else 1)
    spread = f" ± {said['std']}" if said["std"] else ""
    middle = left + CELL_WIDTH / 2
    lift = 9 if said["difference"] else 0
    start = middle - (pen.width(said["mean"], 16, True) + pen.width(spread, 11)) / 2
    pen.text(start, top + CELL_HEIGHT / 2 - 10 - lift, said["mean"], 16, ink, bold=True)
    pen.text(start + pen.width(said["mean"], 16, True), top + CELL_HEIGHT / 2 - 6 - lift, spread, 11, ink)
    if said["difference"]:
        text = f"{said['difference']} vs alone"
        pen.text(middle - (5 if said["mark"] else 0), top + CELL_HEIGHT / 2 + 5, text, 11, ink, anchor="middle")
        if said["mark"]:
            pen.dot(middle + pen.width(text, 11) / 2 + 4, top + CELL_HEIGHT / 2 + 12, 3, ink)


class _Pen:
    """Draws in units of the layout on an image ``SCALE`` times as large."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.fonts: dict[tuple[float, bool], tuple[ImageFont.FreeTypeFont, bool]] = {}

    def font(self, size: float, bold: bool = False) -> tuple[ImageFont.FreeTypeFont, bool]:
        """A font and whether it has the signs that the embedded fallback lacks (a true minus among them)."""
        if (size, bold) not in self.fonts:
            self.fonts[size, bold] = _load_font(round(size * SCALE), bold)
        return self.fonts[size, bold]

    def text(self, x: float, y: float, text: str, size: float, colour: str, bold: bool = False, anchor: str = "left"):
        font, complete = self.font(size, bold)
        shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor] * self.width(text, size, bold)
        self.draw.text(((x - shift) * SCALE, y * SCALE), _plain(text, complete), font=font, fill=colour)

    def sideways(self, x: float, y: float, text: str, size: float, colour: str) -> None:
        font, complete = self.font(size)
        strip = Image.new("RGB", (round(self.width(text, size) * SCALE) + 4, round(size * 1.6 * SCALE)), BACKGROUND)
        ImageDraw.Draw(strip).text((0, 0), _plain(text, complete), font=font, fill=colour)
        strip = strip.rotate(90, expand=True)
        self.image.paste(strip, (round(x * SCALE), round(y * SCALE - strip.height / 2)))

    def width(self, text: str, size: float, bold: bool = False) -> float:
        font, complete = self.font(size, bold)
        return font.getlength(_plain(text, complete)) / SCALE

    def box(self, box: tuple[float, ...], fill: str, outline: str, width: float) -> None:
        scaled = [value * SCALE for value in box]
        self.draw.rounded_rectangle(scaled, radius=5 * SCALE, fill=fill, outline=outline, width=round(width * SCALE))

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self.draw.ellipse([(v + d * radius) * SCALE for d in (-1, 1) for v in (x, y)], fill=colour)


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
