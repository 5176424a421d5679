"""Learning curves: mean ± std over seeds of any tag in ``metrics.jsonl`` against the optimizer step."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from kd_lightning.report import metrics
from kd_lightning.report.collect import Study
from kd_lightning.report.reading import Run
from kd_lightning.report.statistics import spread
from kd_lightning.report.theme import ACCENT, ALONE, ALONE_BAND, Spec, axis, escape, layout, translucent

MAX_POINTS = 60
"""Points a learning curve keeps: what a screen can show."""


def tags(study: Study) -> list[str]:
    """The tags that have a learning curve: the monitored one, validation, losses; no timings."""
    names = {tag for run in study.runs for tag in run.curves if tag.split("/")[0] in ("val", "train", "lr")}
    order = {"val": 0, "train": 1, "lr": 2}
    return sorted(names, key=lambda tag: (tag != f"val/{study.metric}", order[tag.split("/")[0]], tag))


def learning_spec(study: Study, tag: str, shown: Sequence[str] | None = None) -> Spec:
    """Mean ± std over seeds of ``tag`` against the optimizer step.

    Every cell is a trace (``meta`` = its id); those not in ``shown`` (by default the chosen cell and the student alone)
    are hidden. A mean ends where the first seed ends, so that it always is over the same seeds.
    """
    scale = metrics.scale(tag)
    chosen = study.chosen
    alone = list({id(cell): cell for cell in study.alone}.values())
    if shown is None:
        shown = [cell.id for cell in ([chosen] if chosen else study.cells[:1]) + alone[:1]]
    data: list[Spec] = []
    for cell in [*study.cells, *alone]:
        points = mean_curve(list(cell.runs.values()), tag)
        if points is None:
            continue
        steps, means, stds = points
        is_alone = cell.id.startswith("a")
        colour = ALONE if is_alone else ACCENT
        visible = cell.id in shown
        name = "student alone" + (f" {cell.label}" if cell.label else "") if is_alone else cell.label or "distilled"
        data += _band(cell.id, steps, means, stds, scale, colour, visible)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "meta": cell.id,
                "visible": visible,
                "name": escape(name),
                "x": steps,
                "y": [_round(value * scale) for value in means],
                "line": {"color": colour, "width": 2, "dash": "dash" if is_alone else "solid"},
                "hovertemplate": "step %{x}: %{y:.4~g}<extra>%{fullData.name}</extra>",
            }
        )
    settings = layout(height=310, showlegend=True)
    settings["xaxis"] = axis("optimizer step", showgrid=False)
    settings["yaxis"] = axis(metrics.unit(tag).strip() or None)
    return {"data": data, "layout": settings}


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


def _band(cell: str, steps, means, stds, scale: float, colour: str, visible: bool) -> list[Spec]:
    if not any(stds):
        return []
    edge = {"type": "scatter", "mode": "lines", "meta": cell, "visible": visible, "x": steps, "line": {"width": 0}}
    edge.update(showlegend=False, hoverinfo="skip")
    low = [_round((mean - std) * scale) for mean, std in zip(means, stds, strict=True)]
    high = [_round((mean + std) * scale) for mean, std in zip(means, stds, strict=True)]
    filled = ALONE_BAND if colour == ALONE else translucent(colour, 0.16)
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": filled}]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
