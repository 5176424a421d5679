"""Heatmaps of a study over two swept keys: mean ± std in each cell, coloured by the difference to the student alone.

One panel for each combination of the remaining keys, so that no cell ever averages over a hyperparameter. Blue is
better and red is worse, and "+" is better, whichever direction the metric has; a dot marks a difference that holds at
5 % among all the configurations that are compared (Holm's correction).
"""

from __future__ import annotations

from typing import NamedTuple

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ACCENT, INK, MUTED, NEUTRAL, WORSE, Spec, axis, escape, ink_on, layout
from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.grid import Panel, Plan, plan
from kd_lightning.report.study.study import Cell, Study

ROW, LOW_ROW = 74, 30
"""Heights of a row of cells in pixels: with room for two lines of text, and for one."""
MOST_HIGH_ROWS = 20
"""Rows in all panels beyond which they are low: ten panels of ten rows are seen at a glance, not scrolled through."""


def cell_texts(study: Study, cell: Cell, metric: str) -> dict[str, str] | None:
    """What a cell says: ``mean``, ``std`` ("" for one seed), ``difference`` to the student alone ("+" is better), the same
    in ``words`` ("better by 1.2"), and ``mark``, a dot where the difference holds (:attr:`Gain.sure`).
    """
    summary = cell.spread(metric)
    if summary is None:
        return None
    read, gain = study.reads(metric), study.gain(cell, metric)
    return {
        "mean": show.show(read, summary.mean),
        "std": "" if summary.std is None else show.show(read, summary.std, summary.mean),
        "difference": "" if gain is None else show.signed(read, gain.mean, summary.mean),
        "words": "" if gain is None else show.better_by(read, gain.mean, summary.mean, with_units=False),
        "mark": "●" if gain is not None and gain.sure else "",
    }


def has_gains(study: Study, metric: str) -> bool:
    return any(study.gain(cell, metric) for cell in study.cells)


def shade(study: Study, cell: Cell, metric: str) -> float | None:
    """The number that colours a cell, larger = better: the gain over the student alone, or the mean without one."""
    if has_gains(study, metric):
        gain = study.gain(cell, metric)
        return None if gain is None else gain.mean
    summary = cell.spread(metric)
    return None if summary is None else study.reads(metric).sign * summary.mean


class Shades(NamedTuple):
    """Limits of a heatmap's colours: gains about zero (``relative``), or means from the smallest to the largest."""

    low: float
    high: float
    relative: bool


def shade_range(study: Study, metric: str) -> Shades:
    """Colour limits: symmetric about zero for gains, the range of the means otherwise; never empty."""
    shades = [value for cell in study.cells if (value := shade(study, cell, metric)) is not None]
    if has_gains(study, metric):
        limit = max((abs(value) for value in shades), default=0.0) or 1e-9
        return Shades(-limit, limit, True)
    low, high = min(shades, default=0.0), max(shades, default=1.0)
    return Shades(low, high, False) if high > low else Shades(low - 0.5, high + 0.5, False)


def fill(shade_: float | None, limits: Shades) -> tuple[tuple[str, str], float]:
    """A cell's colour as (the two colours it lies between, share of the second)."""
    low, high, relative = limits
    if shade_ is None:
        return (NEUTRAL, ACCENT), 0.0
    if relative:
        return (NEUTRAL, ACCENT if shade_ > 0 else WORSE), min(1.0, abs(shade_) / high)
    return (NEUTRAL, ACCENT), (shade_ - low) / (high - low)


def panel_specs(study: Study, metric: str, x: str | None = None, y: str | None = None) -> list[Spec]:
    """One chart description (``data``, ``layout``) per panel."""
    plan_ = plan(study, x, y)
    if plan_ is None:
        return []
    return [_panel_spec(study, metric, plan_, panel) for panel in plan_.panels]


def _panel_spec(study: Study, metric: str, plan_: Plan, panel: Panel) -> Spec:
    limits = shade_range(study, metric)
    low, high, relative = limits
    rows = len(panel.cells)
    chosen = study.chosen
    texts = [[_texts(study, cell, metric) for cell in row] for row in panel.cells]
    shades = [[shade(study, cell, metric) if cell else None for cell in row] for row in panel.cells]
    hovers = [[[cell.id, _hover(study, cell, metric)] if cell else ["", ""] for cell in row] for row in panel.cells]
    cells: Spec = {
        "type": "heatmap",
        "z": shades,
        "zmin": low,
        "zmax": high,
        "colorscale": [[0, WORSE], [0.5, NEUTRAL], [1, ACCENT]] if relative else [[0, NEUTRAL], [1, ACCENT]],
        "showscale": False,
        "xgap": 4,
        "ygap": 4,
        "customdata": hovers,
        "hovertemplate": "%{customdata[1]}<extra></extra>",
        "hoverongaps": False,
    }
    flat = [(x, y, texts[y][x], shades[y][x]) for y in range(rows) for x in range(len(texts[y]))]
    words: Spec = {
        "type": "scatter",
        "mode": "text",
        "x": [x for x, _, _, _ in flat],
        "y": [y for _, y, _, _ in flat],
        "text": [text[0] for _, _, text, _ in flat],
        "meta": {"short": [text[1] for _, _, text, _ in flat], "tiny": [text[2] for _, _, text, _ in flat]},
        "textfont": {"size": 15, "color": [ink_on(*fill(value, limits)) for _, _, _, value in flat]},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    frames = [
        {
            "type": "rect",
            "x0": column - 0.5,
            "x1": column + 0.5,
            "y0": row - 0.5,
            "y1": row + 0.5,
            "line": {"color": INK, "width": 2.5},
        }
        for row, cells in enumerate(panel.cells)
        for column, cell in enumerate(cells)
        if cell is not None and chosen is not None and cell.id == chosen.id
    ]
    height = ROW if rows * len(plan_.panels) <= MOST_HIGH_ROWS else LOW_ROW
    settings = layout(height=max(150, height * rows + 62 + (24 if panel.title else 0)), shapes=frames)
    settings["margin"] = {"l": 52, "r": 6, "t": 28 if panel.title else 6, "b": 48}
    settings["xaxis"] = _category_axis(plan_.x)
    settings["yaxis"] = _category_axis(plan_.y) if plan_.y else axis(showticklabels=False, showgrid=False)
    if panel.title:
        settings["title"] = {"text": escape(panel.title), "font": {"size": 12, "color": MUTED}, "x": 0.5, "y": 0.98}
    return {"data": [cells, words], "layout": settings}


def _category_axis(factor: Factor) -> Spec:
    ticks = [escape(format_value(value)) for value in factor.values]
    positions = list(range(len(ticks)))
    return axis(
        factor.label,
        tickmode="array",
        tickvals=positions,
        ticktext=ticks,
        tickfont={"color": INK, "size": 12},
        range=[-0.5, len(ticks) - 0.5],
        showgrid=False,
        fixedrange=True,
    )


def _texts(study: Study, cell: Cell | None, metric: str) -> tuple[str, str, str]:
    """A cell's text for wide, narrow and tiny cells."""
    said = cell_texts(study, cell, metric) if cell else None
    if said is None:
        return ("", "", "")
    spread = f" <span style='font-size:11px'>± {said['std']}</span>" if said["std"] else ""
    below = f"{said['difference']} {said['mark']}".strip()
    long = f"<b>{said['mean']}</b>{spread}"
    short = f"<b>{said['mean']}</b>"
    if said["difference"]:
        long += f"<br><span style='font-size:11px'>{said['words']} {said['mark']}</span>"
        short += f"<br><span style='font-size:10px'>{below}</span>"
    return long, short, said["mean"]


def _hover(study: Study, cell: Cell, metric: str) -> str:
    said, summary, gain = cell_texts(study, cell, metric), cell.spread(metric), study.gain(cell, metric)
    if said is None or summary is None:
        return escape(cell.label)
    lines = [
        f"<b>{escape(cell.label)}</b>",
        f"{escape(study.title_of(metric))} {said['mean']}" + (f" ± {said['std']}" if said["std"] else ""),
    ]
    lines[-1] += f" (n = {summary.n})"
    if gain is not None and gain.low is not None:
        ends = [show.signed(study.reads(metric), end, summary.mean) for end in (gain.low, gain.high)]
        lines.append(f"{said['words']} than alone, 95 % CI [{ends[0]}, {ends[1]}]")
    elif gain is not None:
        lines.append(f"{said['words']} than alone, no interval (n = {gain.n})")
    return "<br>".join(lines)
