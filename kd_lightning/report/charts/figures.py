"""The report's charts as Plotly figures, for notebooks and papers.

```python
from kd_lightning.report.charts import figures
study = figures.load("outputs/digits/temperature_weight")
figures.heatmap(study)                                   # test metric over the two most telling keys
figures.heatmap(study, "test/agreement", x="optimizer.lr", y="method.temperature")
figures.learning_curves(study, "val/acc", theme="dark")
```
The descriptions themselves come from ``heatmap``, ``curves``, ``learning`` and ``scatter`` as plain dictionaries: the
page embeds those, which takes a tenth of the time of building validated figures and needs no import of plotly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.report.charts import curves, scatter
from kd_lightning.report.charts import heatmap as heatmaps
from kd_lightning.report.charts.theme import Spec, darkened, layout
from kd_lightning.report.study import learning
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.study import Study

if TYPE_CHECKING:
    import plotly.graph_objects as go


def load(directories: Sequence[Path | str] | Path | str, data: str | None = None) -> Study:
    """The study in one or several sweep directories; ``data`` names the data set where they hold several."""
    studies = [study for study in collect(directories) if data is None or study.data == data]
    if not studies:
        raise ValueError(f"no runs on data set {data!r} in {directories}")
    return studies[0]


def heatmap(
    study: Study, metric: str | None = None, x: str | None = None, y: str | None = None, theme: str = "light"
) -> go.Figure:
    """Mean ± std over the swept keys ``x`` and ``y``, coloured by the difference to the student alone; facets for more.

    Raises:
        ValueError: if ``x`` or ``y`` isn't swept, or the study sweeps nothing but seeds.
    """
    panels = heatmaps.panel_specs(study, metric or study.test_metric, x, y)
    if not panels:
        raise ValueError(f"{study.title} sweeps nothing but seeds: there is no heatmap, see against()")
    return _figure(panels[0] if len(panels) == 1 else _faceted(panels), theme)


def against(
    study: Study, metric: str | None = None, x: str | None = None, y: str | None = None, theme: str = "light"
) -> go.Figure:
    """The metric against one swept key (temperature if it is swept), a line for each value of a second one."""
    return _figure(curves.against_spec(study, metric or study.test_metric, x, y), theme)


def learning_curves(
    study: Study, tag: str | None = None, shown: Sequence[str] | None = None, theme: str = "light"
) -> go.Figure:
    """Mean ± std over seeds of a tag of ``metrics.jsonl``; ``shown``: ids of the cells that aren't hidden."""
    return _figure(learning.learning_spec(study, tag or f"val/{study.metric}", shown), theme)


def fidelity(study: Study, metric: str | None = None, theme: str = "light") -> go.Figure:
    """Agreement with the teacher against the metric, one mark per run.

    Raises:
        ValueError: if no run measured its agreement with the teacher.
    """
    spec = scatter.fidelity_spec(study, metric or study.test_metric)
    if spec is None:
        raise ValueError(f"no run of {study.title} compares student and teacher")
    return _figure(spec, theme)


def price(study: Study, metric: str | None = None, of: str = "parameters", theme: str = "light") -> go.Figure:
    """Size or latency (``of``: parameters, latency_ms, bytes) of teacher and students against the metric."""
    return _figure(scatter.price_spec(study, metric or study.test_metric, of), theme)


def _figure(spec: Spec, theme: str) -> go.Figure:
    import plotly.graph_objects as go

    if theme not in ("light", "dark"):
        raise ValueError(f"theme must be light or dark, got {theme!r}")
    return go.Figure(darkened(spec) if theme == "dark" else spec)


def _faceted(panels: list[Spec]) -> Spec:
    """Panels side by side in one figure, up to three in a row."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    data, shapes, notes = [], [], []
    settings = layout(height=rows * panels[0]["layout"]["height"])
    settings["margin"] = {"l": 60, "r": 10, "t": 30, "b": 50}
    for place, panel in enumerate(panels):
        column, row = place % columns, place // columns
        suffix = "" if place == 0 else str(place + 1)
        width, height = 1 / columns, 1 / rows
        left, bottom = column * width, 1 - (row + 1) * height
        across = [left + 0.035 * (column > 0), left + width - 0.015]
        up = [bottom + 0.3 * height * (row < rows - 1), bottom + height * (1 if row == 0 else 0.9)]
        settings[f"xaxis{suffix}"] = {**panel["layout"]["xaxis"], "domain": across, "anchor": f"y{suffix}"}
        settings[f"yaxis{suffix}"] = {**panel["layout"]["yaxis"], "domain": up, "anchor": f"x{suffix}"}
        if column > 0:
            settings[f"yaxis{suffix}"].update(showticklabels=False, title=None)
        refs = {"xref": f"x{suffix}", "yref": f"y{suffix}"}
        data += [{**trace, "xaxis": refs["xref"], "yaxis": refs["yref"]} for trace in panel["data"]]
        shapes += [{**shape, **refs} for shape in panel["layout"].get("shapes", [])]
        title = panel["layout"].get("title")
        if title:
            middle = {"x": sum(across) / 2, "y": up[1], "xref": "paper", "yref": "paper", "yanchor": "bottom"}
            notes.append({**middle, "text": title["text"], "font": title["font"], "showarrow": False})
    settings.update(shapes=shapes, annotations=notes)
    return {"data": data, "layout": settings}
