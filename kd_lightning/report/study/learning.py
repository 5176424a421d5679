"""Learning curves: mean ± std over seeds of any tag in ``metrics.jsonl`` against the optimizer step."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

from kd_lightning.metrics import show
from kd_lightning.report.charts.theme import ALONE, ALONE_BAND, COMPARED, Spec, axis, escape, layout, translucent
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.statistics import spread
from kd_lightning.report.study.study import Study

MAX_POINTS = 60
"""Points a learning curve keeps: what a screen can show."""


def tags(study: Study) -> list[str]:
    """The tags that have a learning curve: the monitored one, validation, losses; no timings."""
    names = {tag for run in study.runs for tag in run.curves if tag.split("/")[0] in ("val", "train", "lr")}
    order = {"val": 0, "train": 1, "lr": 2}
    return sorted(names, key=lambda tag: (tag != f"val/{study.metric}", order[tag.split("/")[0]], tag))


def curves(study: Study, tag: str) -> list[dict[str, Any]]:
    """One entry per cell: ``id``, ``name``, ``alone``, ``steps``, ``mean``, ``std`` (display scale; 0 for one run).

    A mean ends where the first seed ends, so that it always is over the same seeds.
    """
    scale = show.scale(study.reads(tag))
    found = []
    for cell in [*study.cells, *study.started, *study.alone]:
        points = mean_curve(list(cell.runs.values()) or cell.running, tag)
        if points is None:
            continue
        steps, means, stds = points
        alone = cell in study.alone
        name = f"student alone {cell.label}".strip() if alone else cell.label or "distilled"
        entry = {"id": cell.id, "name": name, "alone": alone, "steps": steps}
        found.append({**entry, "mean": [_round(m * scale) for m in means], "std": [_round(s * scale) for s in stds]})
    return found


def default_shown(study: Study) -> list[str]:
    """The chosen cell and the student alone; before anything has finished, the first few that run."""
    cells = [study.chosen] if study.chosen else [*study.cells, *study.started][:4]
    return [cell.id for cell in [*cells, *study.alone[:1]]]


def learning_spec(study: Study, tag: str, shown: Sequence[str] | None = None) -> Spec:
    """The curves of the cells in ``shown`` (ids; by default the chosen cell and the student alone), std as a band."""
    if shown is None:
        shown = default_shown(study)
    data: list[Spec] = []
    colours = itertools.cycle(COMPARED)
    for curve in [curve for curve in curves(study, tag) if curve["id"] in shown]:
        colour = ALONE if curve["alone"] else next(colours)
        data += _band(curve, ALONE_BAND if curve["alone"] else translucent(colour, 0.16))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(curve["name"]),
                "x": curve["steps"],
                "y": curve["mean"],
                "line": {"color": colour, "width": 2, "dash": "dash" if curve["alone"] else "solid"},
                "hovertemplate": "step %{x}: %{y:.4~g}<extra>%{fullData.name}</extra>",
            }
        )
    return {"data": data, "layout": learning_layout(study, tag)}


def learning_layout(study: Study, tag: str) -> Spec:
    settings = layout(height=310, showlegend=True)
    settings["xaxis"] = axis("optimizer step", showgrid=False)
    settings["yaxis"] = axis(ticksuffix=show.unit(study.reads(tag)).strip())
    return settings


def _band(curve: dict[str, Any], filled: str) -> list[Spec]:
    if not any(curve["std"]):
        return []
    edge: Spec = {"type": "scatter", "mode": "lines", "x": curve["steps"], "line": {"width": 0}}
    edge.update(showlegend=False, hoverinfo="skip")
    pairs = list(zip(curve["mean"], curve["std"], strict=True))
    low, high = [mean - std for mean, std in pairs], [mean + std for mean, std in pairs]
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": filled}]


def mean_curve(runs: Sequence[Run], tag: str) -> tuple[list[float], list[float], list[float]] | None:
    """(steps, means, stds) over the runs that have ``tag``; std 0 for one run. Steps are those of the sparsest run."""
    curves = [run.curves[tag] for run in runs if run.curves.get(tag, ([],))[0]]
    if not curves:
        return None
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    grid = [step for step in min(curves, key=lambda curve: len(curve[0]))[0] if first <= step <= last]
    if not grid:
        return None
    if len(grid) > MAX_POINTS:
        grid = [grid[round(i * (len(grid) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
    summaries = [spread([_at(steps, values, step) for steps, values in curves]) for step in grid]
    return grid, [s.mean for s in summaries], [s.std or 0.0 for s in summaries]


def _at(steps: list[float], values: list[float], step: float) -> float:
    """The curve's value at ``step``, linearly between its points."""
    place = bisect.bisect_left(steps, step)
    if steps[place] == step or place == 0:
        return values[place]
    before, after = steps[place - 1], steps[place]
    return values[place - 1] + (values[place] - values[place - 1]) * (step - before) / (after - before)


def _round(value: float) -> float:
    return float(f"{value:.5g}")
