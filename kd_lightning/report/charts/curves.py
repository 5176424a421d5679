"""A metric against a swept key: lines with the spread over seeds, beside the student alone and the teacher."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from kd_lightning.metrics import show
from kd_lightning.report.charts.ranking import ranking_spec
from kd_lightning.report.charts.theme import (
    ACCENT,
    ALONE,
    ALONE_BAND,
    MUTED,
    SYMBOLS,
    Spec,
    axis,
    colours,
    escape,
    layout,
    translucent,
)
from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.grid import Panel, Plan, plan
from kd_lightning.report.study.study import Cell, Study

MAX_BARRED = 4
"""Lines that may all carry error bars; of more lines, only the chosen configuration's does."""


def against_spec(study: Study, metric: str, x: str | None = None, y: str | None = None) -> Spec:
    """The metric against ``x``, one line for each value of ``y``, error bars ± std, the student alone as a band.

    Further keys are held at the chosen configuration's values. Without any swept key: each seed's student alone and
    distilled student, joined by a line.
    """
    layout_ = plan(study, x, y)
    if layout_ is None:
        return pairs_spec(study, metric)
    if layout_.y is None and not layout_.x.is_numeric:
        return ranking_spec(study, metric, layout_)
    scale = show.scale(study.reads(metric))
    lines = layout_.y
    panel = _panel_of_chosen(study, layout_)
    factor, panel = _ranked(study, metric, layout_.x, panel)
    names = [f"{lines.short} = {format_value(value)}" for value in lines.values] if lines else ["distilled"]
    shades = colours(len(names), lines.is_numeric) if lines else [ACCENT]
    chosen_row = next((i for i, row in enumerate(panel.cells) if study.chosen in row), 0)
    data: list[Spec] = []
    for row, (name, colour) in enumerate(zip(names, shades, strict=True)):
        found = [(i, cell.spread(metric)) for i, cell in enumerate(panel.cells[row]) if cell]
        found = [(i, summary) for i, summary in found if summary is not None]
        if not found:
            continue
        shift = (row - (len(names) - 1) / 2) * 0.016 if len(names) <= MAX_BARRED else 0.0
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if factor.is_numeric else "markers",
                "name": escape(name),
                "x": [_place(factor, i, shift) for i, _ in found],
                "y": [summary.mean * scale for _, summary in found],
                "error_y": {
                    "type": "data",
                    "array": [(summary.std or 0.0) * scale for _, summary in found],
                    "thickness": 1.2,
                    "width": 0,
                    "color": colour,
                    "visible": len(names) <= MAX_BARRED or row == chosen_row,
                },
                "line": {"color": colour, "width": 1.8},
                "marker": {"size": 8, "color": colour, "symbol": SYMBOLS[row % len(SYMBOLS)]},
                "text": [
                    f"{escape(factor.short)} = {escape(format_value(factor.values[i]))}, n = {summary.n}"
                    for i, summary in found
                ],
                "hovertemplate": "%{text}<br>%{y:.4~g}<extra>%{fullData.name}</extra>",
            }
        )
    settings = layout(height=330, showlegend=len(names) > 1)
    settings["xaxis"] = _key_axis(factor)
    settings["yaxis"] = axis(ticksuffix=show.unit(study.reads(metric)).strip())
    _reference_lines(study, metric, settings, [value for trace in data for value in trace["y"]], panel)
    return {"data": data, "layout": settings}


def pairs_spec(study: Study, metric: str) -> Spec:
    """Where only seeds vary: each seed's student alone and distilled student."""
    scale = show.scale(study.reads(metric))
    data = []
    for cell in study.cells:
        for key, value in cell.values(metric).items():
            alone = cell.reference(key, metric)
            points = [] if alone is None else [(0, alone)]
            points.append((1, value))
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [place for place, _ in points],
                    "y": [figure * scale for _, figure in points],
                    "line": {"color": translucent(ACCENT, 0.45), "width": 1.5},
                    "marker": {"size": 9, "color": [ALONE if place == 0 else ACCENT for place, _ in points]},
                    "name": f"seed {escape(cell.runs[key].seed)}",
                    "hovertemplate": "%{y:.4~g}<extra>%{fullData.name}</extra>",
                }
            )
    settings = layout(height=330, showlegend=False)
    settings["xaxis"] = axis(
        tickmode="array", tickvals=[0, 1], ticktext=["student alone", "distilled"], range=[-0.4, 1.4], showgrid=False
    )
    settings["yaxis"] = axis(ticksuffix=show.unit(study.reads(metric)).strip())
    return {"data": data, "layout": settings}


def _panel_of_chosen(study: Study, layout_: Plan) -> Panel:
    chosen = study.chosen
    holds = [p for p in layout_.panels if any(cell is not None and cell is chosen for row in p.cells for cell in row)]
    return (holds or layout_.panels)[0]


def _ranked(study: Study, metric: str, factor: Factor, panel: Panel) -> tuple[Factor, Panel]:
    """Names in the order of their best figure instead of the alphabet's; numbers as they are."""
    if factor.is_numeric:
        return factor, panel
    sign = study.reads(metric).sign

    def best(column: int) -> float:
        found = [row[column].spread(metric) for row in panel.cells if row[column] is not None]
        return max((sign * summary.mean for summary in found if summary is not None), default=-math.inf)

    order = sorted(range(len(factor.values)), key=best, reverse=True)
    cells = [[row[column] for column in order] for row in panel.cells]
    return replace(factor, values=tuple(factor.values[column] for column in order)), replace(panel, cells=cells)


def _place(factor: Factor, index: int, shift: float) -> float:
    """Where a value lies on the axis, moved a little so that error bars of several lines don't cover each other."""
    if factor.is_log:
        return factor.values[index] * 2 ** (shift * 4)
    if factor.is_numeric:
        return factor.values[index] + shift * (factor.values[-1] - factor.values[0])
    return index + shift * 4


def _key_axis(factor: Factor) -> Spec:
    places: list[Any] = list(factor.values) if factor.is_numeric else list(range(len(factor.values)))
    settings: Spec = {"tickmode": "array", "tickvals": places, "showgrid": False}
    settings["ticktext"] = [escape(format_value(value)) for value in factor.values]
    if factor.is_log:
        return axis(f"{factor.label} (log scale)", type="log", **settings)
    if not factor.is_numeric:
        settings["range"] = [-0.5, len(places) - 0.5]
    return axis(factor.label, **settings)


def _reference_lines(study: Study, metric: str, settings: Spec, values: list[float], panel: Panel) -> None:
    """The student alone as a dashed line with a band ± std; the teacher as a line where it is near, else as a note."""
    scale = show.scale(study.reads(metric))
    shapes, notes = [], []
    cell: Cell | None = next((cell for row in panel.cells for cell in row if cell and cell.alone(metric)), None)
    alone = cell.alone(metric) if cell else None
    whole = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    if alone is not None:
        mean, std = alone.mean * scale, (alone.std or 0.0) * scale
        shapes.append(
            {**whole, "type": "rect", "y0": mean - std, "y1": mean + std, "fillcolor": ALONE_BAND, "line": {"width": 0}}
        )
        shapes.append(
            {**whole, "type": "line", "y0": mean, "y1": mean, "line": {"color": ALONE, "width": 1.5, "dash": "dash"}}
        )
        text = f"student alone {show.show(study.reads(metric), alone.mean)}"
        notes.append({"xref": "paper", "x": 1, "xanchor": "right", "y": mean, "yanchor": "bottom", "text": text})
        values = [*values, mean - std, mean + std]
    teacher = study.teacher_spread(metric)
    if teacher is not None and values:
        figure, span = teacher.mean * scale, max(values) - min(values)
        text = f"teacher {show.show(study.reads(metric), teacher.mean)}"
        if min(values) - span / 2 <= figure <= max(values) + span / 2:
            shapes.append(
                {
                    **whole,
                    "type": "line",
                    "y0": figure,
                    "y1": figure,
                    "line": {"color": MUTED, "width": 1.2, "dash": "dot"},
                }
            )
            notes.append({"xref": "paper", "x": 0, "xanchor": "left", "y": figure, "yanchor": "bottom", "text": text})
        else:
            notes.append(
                {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": 1, "text": f"{text} (off scale)"}
            )
    settings["shapes"] = shapes
    settings["annotations"] = [{**note, "showarrow": False, "font": {"size": 11, "color": MUTED}} for note in notes]
