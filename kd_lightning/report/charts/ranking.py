"""Named choices (methods, students) ranked by a metric: one line a name, the best on top, labelled directly."""

from __future__ import annotations

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ACCENT, ALONE, ALONE_BAND, MUTED, Spec, axis, escape, layout
from kd_lightning.report.study.factors import format_value
from kd_lightning.report.study.grid import Plan
from kd_lightning.report.study.study import Study


def ranking_spec(study: Study, metric: str, layout_: Plan) -> Spec:
    """A dot for each name's mean with ± std, the student alone as a band, the teacher as a dotted line.

    Args:
        study: what is shown.
        metric: full name of a figure.
        layout_: its only key is of names; further panels' keys are held at the chosen configuration's values.
    """
    read, factor = study.reads(metric), layout_.x
    scale, sign = show.scale(read), read.sign
    panels = [p for p in layout_.panels if any(cell is study.chosen for row in p.cells for cell in row)]
    row = (panels or layout_.panels)[0].cells[0]
    found = [
        (format_value(value), summary, cell is study.chosen)
        for value, cell in zip(factor.values, row, strict=True)
        if cell is not None and (summary := cell.spread(metric)) is not None
    ]
    found.sort(key=lambda entry: sign * entry[1].mean)  # the last is drawn on top
    names = [escape(name) for name, _, _ in found]
    means = [summary.mean * scale for _, summary, _ in found]
    stds = [(summary.std or 0.0) * scale for _, summary, _ in found]
    marks: Spec = {
        "type": "scatter",
        "mode": "markers",
        "name": "distilled",
        "x": means,
        "y": list(range(len(found))),
        "error_x": {"type": "data", "array": stds, "thickness": 1.3, "width": 0, "color": ACCENT},
        "marker": {"size": 9, "color": ACCENT},
        "text": [f"{name}, n = {summary.n}" for name, (_, summary, _) in zip(names, found, strict=True)],
        "hovertemplate": "%{text}<br>%{x:.4~g}<extra></extra>",
    }
    settings = layout(height=max(200, 96 + 22 * len(found)), showlegend=False)
    settings["xaxis"] = axis(study.title_of(metric), ticksuffix=show.unit(read).strip())
    ticks = [f"<b>{name}</b>" if chosen else name for name, (_, _, chosen) in zip(names, found, strict=True)]
    settings["yaxis"] = axis(
        tickmode="array",
        tickvals=list(range(len(found))),
        ticktext=ticks,
        range=[-0.7, len(found) - 0.3],
        showgrid=True,
    )
    settings["margin"]["t"] = 26
    _references(study, metric, settings, row)
    return {"data": [marks], "layout": settings}


def _references(study: Study, metric: str, settings: Spec, row: list) -> None:
    read = study.reads(metric)
    scale = show.scale(read)
    alone = next((cell.alone(metric) for cell in row if cell is not None and cell.alone(metric)), None)
    teacher = study.teacher_spread(metric)
    whole = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    shapes, notes = [], []
    if alone is not None:
        mean, std = alone.mean * scale, (alone.std or 0.0) * scale
        band = {"fillcolor": ALONE_BAND, "line": {"width": 0}}
        shapes.append({**whole, "type": "rect", "x0": mean - std, "x1": mean + std, **band})
        line = {"color": ALONE, "width": 1.5, "dash": "dash"}
        shapes.append({**whole, "type": "line", "x0": mean, "x1": mean, "line": line})
        notes.append((mean, f"student alone {show.show(read, alone.mean)}", 1.0))
    if teacher is not None:
        figure = teacher.mean * scale
        line = {"color": MUTED, "width": 1.2, "dash": "dot"}
        shapes.append({**whole, "type": "line", "x0": figure, "x1": figure, "line": line})
        notes.append((figure, f"teacher {show.show(read, teacher.mean)}", 1.0))
    settings["shapes"] = shapes
    middle = sum(place for place, _, _ in notes) / len(notes) if notes else 0.0
    settings["annotations"] = [
        {
            "x": place,
            "y": y,
            "yref": "paper",
            "yanchor": "bottom",
            "xanchor": "right" if place > middle else "left",
            "text": text,
            "showarrow": False,
            "font": {"size": 11, "color": MUTED},
        }
        for place, text, y in notes
    ]
