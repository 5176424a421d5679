"""Methods against each other: which are better than which, and which the seeds that there are cannot tell apart.

A sweep over methods, and perhaps over pairs of models and data sets, has for each method and each seed one figure: the
mean over the settings that are not the method's own (students, teachers, data keys). Of a method's own keys (its
temperature, its weights) the values chosen by validation stand for it. Two methods are compared by Student's t test on
their differences seed by seed, all comparisons of a study together by Holm's procedure (1979) at 5 %. What is left
over is a tie, and is shown as one (the critical-difference picture of Demsar 2006, JMLR 7, with paired t tests in the
place of ranks: ranks over five seeds can hardly ever differ significantly).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.statistics import (
    Gain,
    Spread,
    corrected,
    paired_gain,
    spread,
    t_quantile,
)
from kd_lightning.report.study.study import Cell, Study

ALONE = "student alone"
STEP_TIME = "time/own_step_ms"
POWER = 0.8
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Entry:
    """One method, or the student alone.

    Attributes:
        name: as the sweep calls it.
        values: its figure for each seed.
        summary: mean and spread of these.
        tried: how many settings of its own keys it was chosen from, in each of the other settings.
        step_ms: median time of one of its training steps, without the teacher's pass and the loading; None: not written.
        rank: of the best entry to which a tie joins it (:attr:`Comparison.ties`), counted from 1.
    """

    name: str
    values: Mapping[tuple, float]
    summary: Spread
    tried: int
    step_ms: float | None
    rank: int = 1


@dataclass(frozen=True)
class Comparison:
    """The entries, the best mean first, and what is sure of them.

    Attributes:
        entries: the best first.
        gains: for places (i, j), i < j, what entry i has over entry j, positive; ``sure`` after Holm's correction.
        ties: (first, last) places of the longest rows of entries no two of which are surely different.
        settings: how many settings of other keys each figure is a mean over.
        left_out: names that lack one of these settings.
        seeds_needed: seeds at which the first two would be told apart with a chance of 80 % (5 %, one comparison), if
            their difference and its spread are as they look now; None where they already are, or it cannot be said.
    """

    entries: list[Entry]
    gains: dict[tuple[int, int], Gain]
    ties: list[tuple[int, int]]
    settings: int
    left_out: list[str]
    seeds_needed: int | None


def compare(study: Study, metric: str, where: Mapping[str, Any] | None = None) -> Comparison | None:
    """Compare the methods of a study (or else the first key that holds names) by ``metric``, a figure's full name.

    ``where`` holds other swept keys at one value each. None where no key of names is swept, fewer than two entries share two seeds, or no direction is better.
    """
    key = compared_key(study)
    if key is None or study.reads(metric).higher_is_better is None:
        return None
    found, settings, left_out = _entries(study, key, metric, where or {})
    if len(found) < 2:
        return None
    sign = study.reads(metric).sign
    found.sort(key=lambda entry: -sign * entry.summary.mean)
    raw: dict[str, Gain] = {}
    for i, j in itertools.combinations(range(len(found)), 2):
        gain = paired_gain(found[i].values, found[j].values)
        if gain is not None and gain.pairing == "seed" and gain.n > 1:
            raw[f"{i} {j}"] = gain.times(sign)
    if not raw:
        return None
    gains = {}
    for name, gain in corrected(raw).items():
        first, second = name.split()
        gains[int(first), int(second)] = gain
    ties = _ties(len(found), gains)
    firsts = [
        min([first for first, last in ties if first <= place <= last], default=place) for place in range(len(found))
    ]
    entries = [replace(entry, rank=1 + first) for entry, first in zip(found, firsts, strict=True)]
    first_two = gains.get((0, 1))
    needed = None if first_two is None or first_two.sure else seeds_to_separate(first_two)
    return Comparison(entries, gains, ties, settings, left_out, needed)


def compared_key(study: Study) -> Factor | None:
    """The swept key whose values are compared: the method, else the first key of names."""
    named = [factor for factor in study.factors if not factor.is_numeric]
    return next((factor for factor in named if factor.key == "method"), named[0] if named else None)


def seeds_to_separate(gain: Gain) -> int | None:
    """The fewest seeds whose paired t test would find a difference like ``gain`` at 5 % with a chance of 80 %.

    The usual approximation ``n = ((t_0.975 + t_0.8) s / d)^2`` with the quantiles of n - 1 degrees of freedom; ``s`` is
    the standard deviation of the differences, read from the interval. None: no difference, or over ten thousand seeds.
    """
    if gain.low is None or gain.high is None or gain.mean == 0:
        return None
    half = (gain.high - gain.low) / 2
    deviation = half / t_quantile(0.975, gain.n - 1) * math.sqrt(gain.n)

    def separates(n: int) -> bool:
        needed = t_quantile(0.975, n - 1) + t_quantile(POWER, n - 1)
        return needed * deviation / math.sqrt(n) <= abs(gain.mean)

    if not separates(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # separates(high), not separates(low): bisection, as more seeds never separate less
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if separates(middle) else (middle, high)
    return high


def _entries(study: Study, key: Factor, metric: str, where: Mapping[str, Any]) -> tuple[list[Entry], int, list[str]]:
    place = study.factors.index(key)
    held = {i: where[factor.key] for i, factor in enumerate(study.factors) if factor.key in where}
    own = [i for i, factor in enumerate(study.factors) if i != place and factor.key.startswith(f"{key.key}.")]
    others = [i for i in range(len(study.factors)) if i != place and i not in own and i not in held]
    cells: dict[str, dict[Hashable, list[Cell]]] = {}
    for cell in study.cells:
        if all(cell.params[i] == value for i, value in held.items()):
            name = format_value(cell.params[place])
            if key.key != "method":
                name = f"{key.short}={name}"
            cells.setdefault(name, {}).setdefault(tuple(cell.params[i] for i in others), []).append(cell)
    best = {
        name: {setting: _by_validation(study, tried) for setting, tried in settings.items()}
        for name, settings in cells.items()
    }
    wanted = max((set(settings) for settings in best.values()), key=len, default=set())
    entries, left_out = [], []
    for name, settings in best.items():
        if set(settings) != wanted:  # it lacks a student or a data set that others have: a mean of something else
            left_out.append(name)
            continue
        tried = max(len(found) for found in cells[name].values())
        chosen = list(settings.values())
        entry = _entry(name, [cell.values(metric) for cell in chosen], [list(c.runs.values()) for c in chosen], tried)
        entries += [entry] if entry else []
    full = next((settings for settings in best.values() if set(settings) == wanted), {})
    alone = [_alone(cell, metric) for cell in full.values()]
    if alone and all(alone):
        entry = _entry(ALONE, alone, [list(cell.references.values()) for cell in full.values()], 1)
        entries += [entry] if entry else []
    return entries, len(wanted), left_out


def _by_validation(study: Study, cells: Sequence[Cell]) -> Cell:
    sign = study.declared.monitored.sign
    found = [(cell, summary) for cell in cells if (summary := cell.spread(study.val_metric))]
    full = max((summary.n for _, summary in found), default=0)
    scores = [(sign * summary.mean, cell) for cell, summary in found if summary.n == full]
    return max(scores, key=lambda score: score[0], default=(0.0, cells[0]))[1]


def _alone(cell: Cell, metric: str) -> dict[tuple, float]:
    values = {replicate: cell.reference(replicate, metric) for replicate in cell.runs}
    own = len({id(cell.references.get(replicate)) for replicate in values}) == len(values)
    return {k: v for k, v in values.items() if v is not None} if cell.references and own else {}


def _entry(
    name: str, by_setting: Sequence[Mapping[tuple, float]], runs: Sequence[Sequence[Run]], tried: int
) -> Entry | None:
    """The mean over settings for each seed that all of them have; ``runs`` of each setting."""
    seeds = [seed for seed in by_setting[0] if all(seed in values for values in by_setting)]
    values = {seed: math.fsum(found[seed] for found in by_setting) / len(by_setting) for seed in seeds}
    summary = spread(list(values.values()))
    if summary is None:
        return None
    times = [[ms for run in found for ms in run.curves.get(STEP_TIME, ((), ()))[1]] for found in runs]
    step_ms = math.fsum(median(found) for found in times) / len(times) if all(times) else None
    return Entry(name, values, summary, tried, step_ms)


def _ties(count: int, gains: Mapping[tuple[int, int], Gain]) -> list[tuple[int, int]]:
    def tied(first: int, last: int) -> bool:
        pairs = itertools.combinations(range(first, last + 1), 2)
        return not any(pair in gains and gains[pair].sure for pair in pairs)

    found: list[tuple[int, int]] = []
    for first in range(count):
        last = max(last for last in range(first, count) if tied(first, last))
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return found
