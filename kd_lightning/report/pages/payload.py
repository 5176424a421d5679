"""Everything a page shows, as one JSON object: texts, rows and chart descriptions, for each study and metric.

The script in the page (and in TensorBoard's tab) only places what is here. Charts over further pairs of keys are added
while they fit into a budget, so that a page with plotly's 4.8 MB inside stays under 6 MB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kd_lightning.metrics import show
from kd_lightning.report.charts import curves, front, heatmap, parallel, scatter, theme
from kd_lightning.report.pages.comparison_card import comparison_cards
from kd_lightning.report.pages.own_cards import own_cards
from kd_lightning.report.study import grid, learning, remarks, summary
from kd_lightning.report.study.differences import differences
from kd_lightning.report.study.factors import format_value
from kd_lightning.report.study.importance import importance
from kd_lightning.report.study.reading import read_notes
from kd_lightning.report.study.study import Study

BUDGET = 950_000
"""Bytes of JSON beyond which further pairs of keys and curves are left out (never the figures themselves)."""


def payload(studies: Sequence[Study], metric: str | None = None) -> dict[str, Any]:
    """The page's content; ``metric`` is selected at first where a study has it."""
    room = _Room(BUDGET)
    names = [" · ".join(part for part in (study.data, study.task) if part) or study.title for study in studies]
    names = [f"{n} · {s.metric}" if names.count(n) > 1 else n for n, s in zip(names, studies, strict=True)]
    return {
        "generated": datetime.now().isoformat(sep=" ", timespec="minutes"),
        "dark": theme.DARK,
        "compared": list(theme.COMPARED),
        "alone": {"line": theme.ALONE, "band": theme.ALONE_BAND},
        "studies": [{**_study(study, metric, room), "name": name} for study, name in zip(studies, names, strict=True)],
    }


def to_json(content: Any) -> str:
    """Compact JSON that may stand inside a script element: no ``<``, and null for what JSON has no number for."""
    return json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )


class _Room:
    """Bytes left for what is good to have."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, content: Any) -> bool:
        """Whether ``content`` still fits; if so, its size is spent."""
        size = len(to_json(content).encode())
        if size > self.left:
            return False
        self.left -= size
        return True


def _study(study: Study, metric: str | None, room: _Room) -> dict[str, Any]:
    names = study.metrics or [study.test_metric]
    pairs = grid.axes(study) or [None]
    views = {name: [_view(study, name, pairs[0])] for name in names}
    content: dict[str, Any] = {
        "title": study.title,
        "headline": summary.headline(study),
        "complete": all(run.has_ended for run in study.runs),
        "metrics": [_metric(study, name) for name in names],
        "metric": metric if metric in names else names[0],
        "validation": study.val_metric,
        "comparison": scatter.fidelity_metric(study),
        "seeds": _seeds(study),
        "factors": [{"label": f.label, "short": f.short, "key": f.key} for f in study.factors],
        "pairs": [_pair_name(pair) for pair in pairs],
        "views": views,
        "cards": {name: summary.cards(study, name) for name in names},
        "fidelity": {name: scatter.fidelity_spec(study, name) for name in names},
        "prices": {name: {p: scatter.price_spec(study, name, p) for p in scatter.prices(study)} for name in names},
        "front": front.front_content(study),
        "rows": summary.rows(study),
        "shown": learning.default_shown(study),
        "problems": remarks.problems(study),
        "importance": {name: _importance(study, name) for name in names},
        "parallel": {name: spec for name in names if (spec := parallel.parallel_spec(study, name)) is not None},
        "differences": differences(study),
        "remark": " ".join(text for folder in study.folders if (text := read_notes(folder))),
        "warnings": remarks.warnings(study),
        "notes": remarks.notes(study),
        "best": remarks.best_command(study),
        "rerun": remarks.rerun_command(study),
        "own": [*comparison_cards(study), *own_cards(study)],
    }
    room.take(content)
    content["learning"] = {}
    for tag in learning.tags(study):
        lines = learning.curves(study, tag)
        if lines and (room.take(lines) or not content["learning"]):
            content["learning"][tag] = {"curves": lines, "layout": learning.learning_layout(study, tag)}
    for pair in pairs[1:]:
        for name in names:
            view = _view(study, name, pair)
            if len(views[name]) == pairs.index(pair) and room.take(view):
                views[name].append(view)
    return content


def _metric(study: Study, name: str) -> dict[str, Any]:
    """How the page's script names a figure, and which way it sorts."""
    read = study.reads(name)
    return {
        "id": name,
        "title": study.title_of(name),
        "high": read.higher_is_better is not False,
        "unit": show.unit(read),
    }


def _importance(study: Study, metric: str) -> list[dict[str, Any]]:
    return [{"label": factor.label, "share": share} for factor, share in importance(study, metric)]


def _seeds(study: Study) -> str:
    """How many runs stand behind a figure: "n = 3 seeds", "n = 1 to 3 seeds"."""
    counts = sorted({len(cell.runs) for cell in study.cells}) or [0]
    numbers = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {numbers} seed{'s' if counts[-1] != 1 else ''}"


def _view(study: Study, metric: str, pair: tuple | None) -> dict[str, Any]:
    """The charts over one pair of swept keys."""
    if pair is None:
        against = curves.against_spec(study, metric)
        return {"title": "Each seed", "heatmaps": [], "against": against, "held": "student alone and distilled"}
    first, second = pair
    keys = (first.key, second.key if second else None)
    title = f"{_capital(first.label)} \u00d7 {second.label}" if second else _capital(first.label)
    return {
        "title": title,
        "heatmaps": heatmap.panel_specs(study, metric, *keys) if second else [],
        "against": curves.against_spec(study, metric, *keys),
        "held": _held(study, pair),
    }


def _held(study: Study, pair: tuple) -> str:
    """What the line chart shows: its error bars, and the values at which it holds the remaining keys."""
    lines = pair[1].values if pair[1] else ()
    bars = "error bars: ± std" + (" (of the chosen line)" if len(lines) > curves.MAX_BARRED else "")
    rest = [factor for factor in study.factors if factor not in pair]
    if not rest or study.chosen is None:
        return bars
    values = dict(zip((factor.key for factor in study.factors), study.chosen.params, strict=True))
    return f"{bars}; at " + ", ".join(f"{factor.short} = {format_value(values[factor.key])}" for factor in rest)


def _pair_name(pair: tuple | None) -> str:
    return "" if pair is None else " \u00d7 ".join(factor.short for factor in pair if factor is not None)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value if isinstance(value, (str, int, bool)) or value is None else str(value)
