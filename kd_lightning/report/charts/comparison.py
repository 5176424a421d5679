"""Methods from best to worst, with a bar beside those that nobody can tell apart: a critical-difference picture."""

from __future__ import annotations

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ACCENT, ALONE, INK, Spec, axis, escape, layout
from kd_lightning.report.study.comparison import ALONE as ALONE_NAME
from kd_lightning.report.study.comparison import Comparison
from kd_lightning.report.study.study import Study

BAR_STEP = 14
"""Pixels between two bars."""


def comparison_spec(study: Study, metric: str, compared: Comparison) -> Spec:
    """A dot for each entry's mean with ± std over seeds, the best on top; bars at the right join ties."""
    read = study.reads(metric)
    scale, count = show.scale(read), len(compared.entries)
    entries = compared.entries
    heights = [count - 1 - place for place in range(count)]
    marks: Spec = {
        "type": "scatter",
        "mode": "markers",
        "x": [entry.summary.mean * scale for entry in entries],
        "y": heights,
        "error_x": {
            "type": "data",
            "array": [(entry.summary.std or 0.0) * scale for entry in entries],
            "thickness": 1.3,
            "width": 0,
            "color": ACCENT,
        },
        "marker": {"size": 9, "color": [ALONE if entry.name == ALONE_NAME else ACCENT for entry in entries]},
        "text": [f"{escape(entry.name)}, n = {entry.summary.n}" for entry in entries],
        "hovertemplate": "%{text}<br>%{x:.4~g}<extra></extra>",
    }
    settings = layout(height=max(200, 80 + 22 * count), showlegend=False)
    settings["xaxis"] = axis(study.title_of(metric), ticksuffix=show.unit(read).strip())
    settings["yaxis"] = axis(
        tickmode="array",
        tickvals=heights,
        ticktext=[escape(entry.name) for entry in entries],
        range=[-0.7, count - 0.3],
        showgrid=True,
    )
    settings["margin"]["r"] = 20 + BAR_STEP * len(compared.ties)
    settings["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "xsizemode": "pixel",
            "xanchor": 1,
            "x0": 12 + BAR_STEP * number,
            "x1": 12 + BAR_STEP * number,
            "y0": count - 1 - first + 0.25,
            "y1": count - 1 - last - 0.25,
            "line": {"color": INK, "width": 4},
        }
        for number, (first, last) in enumerate(compared.ties)
    ]
    return {"data": [marks], "layout": settings}
