"""How much each swept key matters for a metric: the share of the configurations' variance that it explains alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kd_lightning.report.study.factors import Factor
from kd_lightning.report.study.study import Study


def importance(study: Study, metric: str) -> list[tuple[Factor, float]]:
    """Each swept key with its main effect, the largest first: variance between the means of its values over the whole
    variance of the configurations' means, in [0, 1]. What no key explains alone is their interplay and chance.

    Empty for fewer than two keys or three configurations, where there is nothing to weigh.
    """
    found = [(cell.params, summary.mean) for cell in study.cells if (summary := cell.spread(metric)) is not None]
    values = [value for _, value in found]
    total = _squares(values)
    if len(study.factors) < 2 or len(found) < 3 or not total:
        return []
    shares = []
    for place, factor in enumerate(study.factors):
        groups: dict[object, list[float]] = {}
        for params, value in found:
            groups.setdefault(params[place], []).append(value)
        within = math.fsum(_squares(group) for group in groups.values())
        shares.append((factor, max(0.0, 1 - within / total)))
    return sorted(shares, key=lambda entry: -entry[1])


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values) if values else 0.0
    return math.fsum((value - mean) ** 2 for value in values)
