"""Two scatters: fidelity to the teacher against the metric, and the price (size, latency) against the metric."""

from __future__ import annotations

import math

from kd_lightning.metrics import show
from kd_lightning.metrics.metric import Metric
from kd_lightning.report.charts.theme import (
    ACCENT,
    ALONE,
    CARD,
    COMPARED,
    INK,
    MUTED,
    SYMBOLS,
    TEACHER,
    Spec,
    axis,
    colours,
    escape,
    layout,
)
from kd_lightning.report.study.exports import exported_files
from kd_lightning.report.study.factors import format_value
from kd_lightning.report.study.grid import plan
from kd_lightning.report.study.study import Cell, Study

MOST_COLOURS = 6
"""Groups that colours can tell apart; of more groups, names stand beside the marks."""

EXPORTED = COMPARED[2]
MOST_FILES = 12
"""Exported files that are shown; more would cover each other."""

PRICES = {"parameters": "parameters", "latency_ms": "latency [ms]", "bytes": "size [bytes]"}


def fidelity_metric(study: Study) -> str | None:
    """The first declared test figure that compares student and teacher and that some run has."""
    return next(iter(study.declared.fidelity(name for name in study.metrics if name.startswith("test/"))), None)


def fidelity_spec(study: Study, metric: str) -> Spec | None:
    """One mark per run: does imitating the teacher help? None where no run measured its agreement with the teacher."""
    fidelity = fidelity_metric(study)
    if fidelity is None:
        return None
    if metric == fidelity:
        metric = study.test_metric
    layout_ = plan(study)
    key = layout_.x if layout_ else None
    groups: list[tuple[str, list[Cell]]] = [("distilled", study.cells)]
    if key is not None:
        place = [factor.key for factor in study.factors].index(key.key)
        groups = [
            (f"{key.short} = {format_value(value)}" if key.is_numeric else format_value(value), cells)
            for value in key.values
            if (cells := [cell for cell in study.cells if cell.params[place] == value])
        ]
    shades = [ACCENT] if key is None else colours(len(groups), key.is_numeric)
    labelled = len(groups) > MOST_COLOURS  # more colours than can be told apart: one colour, names beside the marks
    data = [
        _marks(study, name, cells, fidelity, metric, {
            "color": ACCENT if labelled else colour,
            "symbol": "circle" if labelled else SYMBOLS[place % len(SYMBOLS)],
            "size": 7 if labelled else 9,
            "opacity": 0.55 if labelled else 0.85,
        })
        for place, ((name, cells), colour) in enumerate(zip(groups, shades, strict=True))
    ]  # fmt: skip
    if labelled:
        data.append(_names(study, groups, fidelity, metric))
    if study.alone:
        hollow = {"symbol": "square", "size": 9, "color": CARD, "line": {"color": ALONE, "width": 1.6}}
        data.append(_marks(study, "student alone", study.alone, fidelity, metric, hollow))
    settings = layout(height=420 if labelled else 310, showlegend=len(data) > 1 and not labelled)
    read = study.reads(fidelity)
    settings["xaxis"] = axis(read.heading, ticksuffix=show.unit(read).strip(), showgrid=False)
    settings["yaxis"] = axis(study.title_of(metric), ticksuffix=show.unit(study.reads(metric)).strip())
    return {"data": data, "layout": settings}


def _names(study: Study, groups: list[tuple[str, list[Cell]]], x: str, y: str) -> Spec:
    """Each group's name beside the mean of its runs."""
    placed = []
    for name, cells in groups:
        runs = [run for cell in cells for run in cell.runs.values() if x in run.metrics and y in run.metrics]
        if runs:
            means = [sum(run.metrics[metric] for run in runs) / len(runs) for metric in (x, y)]
            placed.append((name, *(mean * show.scale(study.reads(m)) for mean, m in zip(means, (x, y), strict=True))))
    placed = _apart(placed)
    return {
        "type": "scatter",
        "mode": "text",
        "x": [place for _, place, _ in placed],
        "y": [place for _, _, place in placed],
        "text": [escape(name) for name, _, _ in placed],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": INK},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _apart(placed: list[tuple]) -> list[tuple]:
    """Those names that do not cover one placed before, the highest first; marks tell the others when pointed at."""
    kept: list[tuple] = []
    spans = [max((p[i] for p in placed), default=0.0) - min((p[i] for p in placed), default=0.0) or 1.0 for i in (1, 2)]
    for name, x, y in sorted(placed, key=lambda entry: -entry[2]):
        if all(abs(x - other[1]) > 0.4 * spans[0] or abs(y - other[2]) > 0.09 * spans[1] for other in kept):
            kept.append((name, x, y))
    return kept


def _marks(study: Study, name: str, cells: list[Cell], x: str, y: str, marker: Spec) -> Spec:
    runs = [(cell, run) for cell in cells for run in cell.runs.values() if x in run.metrics and y in run.metrics]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(name),
        "x": [run.metrics[x] * show.scale(study.reads(x)) for _, run in runs],
        "y": [run.metrics[y] * show.scale(study.reads(y)) for _, run in runs],
        "text": [escape(run.name) for _, run in runs],
        "marker": marker,
        "hovertemplate": "%{text}<br>%{x:.4~g}, %{y:.4~g}<extra></extra>",
    }


def prices(study: Study) -> list[str]:
    """Which prices the runs know, of parameters, latency and bytes."""
    runs = [run for cell in study.cells for run in cell.runs.values()]
    return [name for name in PRICES if any(isinstance(run.student.get(name), (int, float)) for run in runs)]


def price_spec(study: Study, metric: str, price: str = "parameters") -> Spec:
    """Teacher, distilled student and student alone: what they cost against what they reach.

    Of several students the best configuration of each (by validation) is shown; of runs that were exported, their files.
    """
    points = []
    for teacher in study.teachers():
        value = teacher.get(metric.replace("best/val_", "val/"))
        points.append(("teacher", "teacher", teacher.get(price), value, None, TEACHER))
    students: dict[float, list[Cell]] = {}
    for cell in study.cells:
        size = next(iter(cell.runs.values())).student.get(price)
        students.setdefault(size, []).append(cell)
    if price == "latency_ms":  # measured anew in every run: not a name for a student
        students = {min(students): study.cells} if students and _one_student(study) else students
    sign = study.declared.monitored.sign
    for cells in students.values():
        scored = [cell for cell in cells if cell.spread(study.val_metric) and cell.spread(metric)]
        if study.chosen in scored:
            best: Cell | None = study.chosen
        else:
            best = max(scored, key=lambda cell: sign * cell.spread(study.val_metric).mean, default=None)
        if best is None:
            continue
        run = next(iter(best.runs.values()))
        summary, alone = best.spread(metric), best.alone(metric)
        label = f"distilled ({best.label})" if best.label else "distilled"
        points.append(("distilled", label, run.student.get(price), summary.mean, summary.std, ACCENT))
        if alone:
            points.append(("alone", "student alone", run.student.get(price), alone.mean, alone.std, ALONE))
    points += _exported(study, metric, price)
    points = [point for point in points if all(isinstance(value, (int, float)) for value in point[2:4])]
    return _price_figure(points, study.reads(metric), price)


def _exported(study: Study, metric: str, price: str) -> list[tuple]:
    """Points of the exported files, where the price is one that files have and the metric is of the test split."""
    part, _, name = metric.partition("/")
    if part != "test" or price not in ("bytes", "latency_ms"):
        return []
    runs = [run for cell in study.cells for run in cell.runs.values()]
    files = list(exported_files(runs))
    several = len({file.run.name for file in files}) > 1
    return [
        (
            "exported",
            f"{file.name} ({file.run.name})" if several else file.name,
            getattr(file, price),
            file.metrics.get(name),
            None,
            EXPORTED,
        )
        for file in files[:MOST_FILES]
    ]


def _one_student(study: Study) -> bool:
    sizes = {run.student.get("parameters") for cell in study.cells for run in cell.runs.values()}
    return len(sizes) == 1


def _price_figure(points: list[tuple], metric: Metric, price: str) -> Spec:
    scale = show.scale(metric)
    amounts = [point[2] for point in points]
    middle = (max(amounts) * max(min(amounts), 1e-9)) ** 0.5 if amounts else 1.0
    data, notes = [], []
    for kind, label, amount, value, std, colour in points:
        shown = f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"
        noun = {"parameters": " parameters", "latency_ms": " ms", "bytes": " bytes"}[price]
        said = show.with_unit(metric, value)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(label),
                "x": [amount],
                "y": [value * scale],
                "error_y": {
                    "type": "data",
                    "array": [(std or 0.0) * scale],
                    "width": 0,
                    "thickness": 1.4,
                    "color": colour,
                },
                "marker": {"size": 12, "color": colour},
                "hovertemplate": f"{escape(label)}<br>{shown}{noun}, {said}<extra></extra>",
            }
        )
        if kind == "exported":  # a dozen names would cover each other: they are told when pointed at
            data[-1]["marker"] = {"size": 9, "color": colour, "symbol": "diamond-open"}
            continue
        left = amount > middle
        notes.append(
            {
                "x": amount,
                "y": value * scale,
                "text": f"<b>{escape(label)}</b><br><span style='font-size:11px'>{shown}{noun} · {said}</span>",
                "xanchor": "right" if left else "left",
                "align": "right" if left else "left",
                "xshift": -12 if left else 12,
                "showarrow": False,
                "font": {"color": INK, "size": 12},
            }
        )
    settings = layout(height=300, showlegend=False)
    spread_out = bool(amounts) and min(amounts) > 0 and max(amounts) / min(amounts) >= 3
    settings["xaxis"] = axis(f"{PRICES[price]}{' (log scale)' if spread_out else ''}", showgrid=False)
    if spread_out:
        ends = [math.log10(min(amounts)), math.log10(max(amounts))]
        settings["xaxis"].update(type="log", range=[ends[0] - 0.35, ends[1] + 0.35], dtick=1, tickformat="~s")
        for note in notes:
            note["x"] = math.log10(note["x"])
    settings["yaxis"] = axis(ticksuffix=show.unit(metric).strip())
    settings["yaxis"]["tickfont"] = {"color": MUTED, "size": 11}
    settings["annotations"] = notes
    return {"data": data, "layout": settings}
