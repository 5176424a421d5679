"""Parallel coordinates: every configuration a line across all swept keys and the metric, coloured by the metric."""

from __future__ import annotations

import math

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ACCENT, ALONE, INK, MUTED, Spec, escape, layout
from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.study import Study

FEWEST_KEYS = 3
"""Of fewer keys the heatmap shows more."""


def parallel_spec(study: Study, metric: str) -> Spec | None:
    """None where fewer than ``FEWEST_KEYS`` keys are swept. A range dragged on an axis keeps the lines through it."""
    found = [(cell, summary) for cell in study.cells if (summary := cell.spread(metric)) is not None]
    if len(study.factors) < FEWEST_KEYS or len(found) < 2:
        return None
    read = study.reads(metric)
    means = [summary.mean * show.scale(read) for _, summary in found]
    dimensions = [_dimension(factor, [cell.params[i] for cell, _ in found]) for i, factor in enumerate(study.factors)]
    dimensions.append({"label": escape(study.title_of(metric)), "values": means})
    line = {
        "color": means,
        "colorscale": [[0, ALONE], [1, ACCENT]],
        "reversescale": read.sign < 0,
        "cmin": min(means),
        "cmax": max(means),
    }
    fonts = {"labelfont": {"color": INK, "size": 12}, "tickfont": {"color": MUTED, "size": 11}}
    settings = layout(height=300)
    settings["margin"] = {"l": 56, "r": 40, "t": 46, "b": 20}
    return {"data": [{"type": "parcoords", "dimensions": dimensions, "line": line, **fonts}], "layout": settings}


def _dimension(factor: Factor, values: list) -> Spec:
    places = [math.log2(v) for v in factor.values] if factor.is_log else list(factor.values)
    if not factor.is_numeric:
        places = list(range(len(factor.values)))
    position = dict(zip(factor.values, places, strict=True))
    texts = [escape(format_value(value)) for value in factor.values]
    drawn = [position.get(value) for value in values]
    return {"label": escape(factor.short), "values": drawn, "tickvals": places, "ticktext": texts}
