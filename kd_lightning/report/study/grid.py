"""How a study's configurations are laid out for showing: two keys span a grid, the others make panels of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.study import Cell, Study

MAX_PANELS = 12


@dataclass(frozen=True)
class Panel:
    """One heatmap's cells: ``cells[row][column]`` with rows over ``y``'s values and columns over ``x``'s."""

    title: str
    cells: list[list[Cell | None]]


@dataclass(frozen=True)
class Plan:
    """Which keys span the heatmap and its panels; ``y`` is None where a single key is swept."""

    x: Factor
    y: Factor | None
    panels: list[Panel]
    left_out: int  # panels beyond MAX_PANELS that are not drawn


def axes(study: Study) -> list[tuple[Factor, Factor | None]]:
    """Every pair of swept keys, the most telling first: temperature before numbers before names, many values first."""
    ranked = sorted(study.factors, key=lambda f: (f.short != "T", not f.is_numeric, -len(f.values)))
    return list(itertools.combinations(ranked, 2)) if len(ranked) > 1 else [(factor, None) for factor in ranked]


def plan(study: Study, x: str | None = None, y: str | None = None) -> Plan | None:
    """Lay the cells out over the keys ``x`` and ``y`` (config keys; None chooses). None: nothing swept or finished."""
    if not study.factors:
        return None
    default_x, default_y = axes(study)[0]
    by_key = {factor.key: factor for factor in study.factors}
    for key in (x, y):
        if key is not None and key not in by_key:
            raise ValueError(f"{key!r} isn't swept in {study.title}: choose from {', '.join(by_key)}")
    first = by_key.get(x, default_x if default_x.key != y else default_y)
    others = [f for pair in axes(study) for f in pair if f is not None and f.key != first.key]
    second = by_key.get(y, others[0] if others else None)
    rest = [factor for factor in study.factors if factor.key not in (first.key, second.key if second else None)]
    keys = [factor.key for factor in study.factors]
    cells = {frozenset(zip(keys, cell.params, strict=True)): cell for cell in study.cells}
    panels, left_out = [], 0
    for values in itertools.product(*(factor.values for factor in rest)):
        fixed = [(factor.key, value) for factor, value in zip(rest, values, strict=True)]
        rows = [[(second.key, value)] for value in second.values] if second else [[]]
        grid = [[cells.get(frozenset([*fixed, (first.key, a), *row])) for a in first.values] for row in rows]
        if not any(cell for row in grid for cell in row):
            continue
        if len(panels) == MAX_PANELS:
            left_out += 1
            continue
        title = ", ".join(f"{f.short} = {format_value(v)}" for f, v in zip(rest, values, strict=True))
        panels.append(Panel(title, grid))
    return Plan(first, second, panels, left_out) if panels else None
