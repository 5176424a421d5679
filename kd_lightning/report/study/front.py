"""The Pareto front of a search with several objectives: configurations that no other surpasses in all of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.study import Cell, Objective, Study


@dataclass(frozen=True)
class Standing:
    """A configuration and its means of the objectives, in their order."""

    cell: Cell
    values: tuple[float, ...]


def standings(study: Study) -> list[Standing]:
    """The configurations that have every objective's figure."""
    found = []
    for cell in study.cells:
        columns = [[_figure(study, run, objective) for run in cell.runs.values()] for objective in study.objectives]
        known = [[value for value in column if value is not None] for column in columns]
        if known and all(known):
            found.append(Standing(cell, tuple(statistics.fmean(column) for column in known)))
    return found


def front(study: Study, among: Sequence[Standing]) -> list[Standing]:
    """Those that no other is at least as good as in all objectives and better in one; in the order of the first."""
    signs = [1 if objective.maximize else -1 for objective in study.objectives]
    scores = {id(one): tuple(s * v for s, v in zip(signs, one.values, strict=True)) for one in among}
    # a configuration can only be surpassed by one that sorts before it, and then by one that is in the front itself
    kept: list[Standing] = []
    for one in sorted(among, key=lambda one: scores[id(one)], reverse=True):
        mine = scores[id(one)]
        if not any(_surpasses(scores[id(other)], mine) for other in kept):
            kept.append(one)
    return kept


def _surpasses(other: tuple[float, ...], mine: tuple[float, ...]) -> bool:
    return other != mine and all(a >= b for a, b in zip(other, mine, strict=True))


def _figure(study: Study, run: Run, objective: Objective) -> float | None:
    if objective.path in run.metrics:
        return run.metrics[objective.path]
    if objective.path == "monitor":
        return run.metrics.get(study.val_metric)
    part, _, name = objective.path.partition(".")
    places: dict[str, Mapping[str, Any]] = {"student": run.student, "cost": run.cost}
    value = places.get(part, {}).get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
