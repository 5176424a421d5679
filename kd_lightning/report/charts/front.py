"""The Pareto front of a search: every configuration by its first two objectives, the front's as a line of steps."""

from __future__ import annotations

from typing import Any

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ACCENT, MUTED, Spec, axis, escape, layout
from kd_lightning.report.study.front import Standing, front, standings
from kd_lightning.report.study.study import Objective, Study

NAMES = {
    "student.parameters": "parameters",
    "student.bytes": "size [bytes]",
    "student.latency_ms": "latency [ms]",
    "cost.seconds": "training [s]",
}


def front_content(study: Study) -> dict[str, Any] | None:
    """Chart and table of the front; None for a sweep that is no search with several objectives."""
    if len(study.objectives) < 2:
        return None
    every = standings(study)
    best = front(study, every)
    goals = ", ".join(f"{_name(study, o)} {'high' if o.maximize else 'low'}" for o in study.objectives)
    return {
        "note": f"{len(best)} of {len(every)} configurations: {goals}",
        "columns": ["configuration", *(_name(study, objective) for objective in study.objectives)],
        "rows": [[one.cell.label, *_texts(study, one)] for one in best],
        "chart": _chart(study, every, best),
    }


def _chart(study: Study, every: list[Standing], best: list[Standing]) -> Spec:
    vertical, across = study.objectives[0], study.objectives[1]
    scales = [_scale(study, vertical), _scale(study, across)]

    def marks(name: str, those: list[Standing], **style: Any) -> Spec:
        return {
            "type": "scatter",
            "name": name,
            "x": [one.values[1] * scales[1] for one in those],
            "y": [one.values[0] * scales[0] for one in those],
            "text": [f"{escape(one.cell.label)}<br>{', '.join(_texts(study, one))}" for one in those],
            "hovertemplate": "%{text}<extra></extra>",
            **style,
        }

    line = {"color": ACCENT, "width": 1.6, "shape": "hv" if not across.maximize else "vh"}
    others = [one for one in every if one not in best]
    settings = layout(height=320, showlegend=True)
    settings["xaxis"] = axis(_name(study, across), showgrid=False)
    settings["yaxis"] = axis(_name(study, vertical), ticksuffix=_unit(study, vertical).strip())
    amounts = [one.values[1] for one in every]
    if amounts and min(amounts) > 0 and max(amounts) / min(amounts) >= 10:
        settings["xaxis"]["type"] = "log"
    ordered = sorted(best, key=lambda one: one.values[1])
    return {
        "data": [
            marks("others", others, mode="markers", marker={"size": 7, "color": MUTED, "opacity": 0.6}),
            marks("front", ordered, mode="lines+markers", line=line, marker={"size": 10, "color": ACCENT}),
        ],
        "layout": settings,
    }


def _metric(study: Study, objective: Objective) -> str | None:
    """The metric's full name, where the objective is one."""
    if objective.path == "monitor":
        return study.val_metric
    return objective.path if "/" in objective.path else None


def _name(study: Study, objective: Objective) -> str:
    metric = _metric(study, objective)
    return study.title_of(metric) if metric else NAMES.get(objective.path, objective.path)


def _scale(study: Study, objective: Objective) -> float:
    metric = _metric(study, objective)
    return show.scale(study.reads(metric)) if metric else 1.0


def _unit(study: Study, objective: Objective) -> str:
    metric = _metric(study, objective)
    return show.unit(study.reads(metric)) if metric else ""


def _texts(study: Study, one: Standing) -> list[str]:
    texts = []
    for objective, value in zip(study.objectives, one.values, strict=True):
        metric = _metric(study, objective)
        plain = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        texts.append(show.with_unit(study.reads(metric), value) if metric else plain)
    return texts
