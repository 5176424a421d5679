"""Which configuration keys a sweep varies: the few that tell runs apart, without those that merely follow from them.

Runs of a sweep differ in many resolved keys: a swept temperature also appears in the loss's own config, a swept method
brings its terms along, every run has its own directory. A key that the keys already chosen determine tells nothing new
and is left out; keys that the user named in the command come first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.config.keys import decides, is_seed
from kd_lightning.report.study.reading import Run

MISSING = "\u2013"
"""Shown for a key that a run's configuration doesn't have."""


@dataclass(frozen=True)
class Factor:
    """A swept key with the values that occur, sorted.

    ``label`` names an axis ("temperature T"), ``short`` stands before a value ("T"), ``values`` are numbers or text.
    """

    key: str
    label: str
    short: str
    values: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def is_log(self) -> bool:
        """Whether a logarithmic axis suits: at least three positive values over a factor of eight or more."""
        if not self.is_numeric or len(self.values) < 3 or self.values[0] <= 0:
            return False
        return self.values[-1] / self.values[0] >= 8


def value_of(run: Run, key: str) -> Any:
    """The run's value of ``key``: from its configuration; for a config group (``method``) the option's name."""
    if key in run.config:
        return _comparable(run.config[key])
    overrides = run.override_values
    if key in overrides:
        return _comparable(overrides[key])
    return _comparable(run.choices.get(key, run.config.get(f"{key}.name", MISSING)))


def find_factors(runs: Sequence[Run], declared: Iterable[str] = ()) -> list[Factor]:
    """The keys in which ``runs`` differ, except seeds, places and what other keys imply.

    Args:
        runs: the runs to tell apart.
        declared: keys that the sweep says it varies, in the order of its command.
    """
    declared = list(dict.fromkeys(declared))
    known = [run for run in runs if run.config] or list(runs)  # a run that hasn't started only knows its overrides
    chosen = [key for key in declared if not is_seed(key) and _varies([r for r in runs if _has(r, key)], key)]
    chosen = [key for key in chosen if not _is_mapping(known, key)]  # its values are keys of their own
    for key in dict.fromkeys(key for run in known for key in run.override_values):
        if key in chosen or is_seed(key) or not decides(key) or not _varies(known, key) or _is_mapping(known, key):
            continue
        if not _has_twin(known, key, chosen):
            chosen.append(key)
    if not _explains(known, chosen):
        chosen += _unnamed(known, chosen)
    started = {key: {value_of(run, key) for run in known} for key in chosen}
    expected = {key: {value_of(run, key) for run in runs if _has(run, key)} for key in chosen}
    return _label([(key, _sorted(started[key] | expected[key])) for key in chosen])


def format_value(value: Any) -> str:
    """A short text: 4.0 -> "4", 0.00025 -> "0.00025", True -> "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "null"
    return str(value)


def _comparable(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return int(value)
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)


def _has(run: Run, key: str) -> bool:
    return value_of(run, key) != MISSING


def _is_mapping(runs: Sequence[Run], key: str) -> bool:
    return any(str(value_of(run, key)).startswith("{") for run in runs)


def _identity(value: Any) -> tuple[str, str]:
    return ("bool" if isinstance(value, bool) else "", str(value))


def _column(runs: Sequence[Run], keys: Sequence[str]) -> list[tuple]:
    return [tuple(_identity(value_of(run, key)) for key in keys) for run in runs]


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len(set(_column(runs, [key]))) > 1


def _follows(values: list[tuple], given: list[tuple]) -> bool:
    """Whether ``values`` is a function of ``given``, run by run."""
    seen: dict[tuple, tuple] = {}
    return all(seen.setdefault(cause, value) == value for cause, value in zip(given, values, strict=True))


def _has_twin(runs: Sequence[Run], key: str, chosen: Sequence[str]) -> bool:
    """Whether a chosen key always changes together with ``key``, so that both tell the same."""
    mine = _column(runs, [key])
    return any(_follows(mine, theirs) and _follows(theirs, mine) for theirs in (_column(runs, [k]) for k in chosen))


def _explains(runs: Sequence[Run], chosen: Sequence[str]) -> bool:
    """Whether runs that agree in the chosen keys differ in seeds only, as their configurations say."""
    return _follows([(run.setting,) for run in runs], _column(runs, chosen))


def _unnamed(runs: Sequence[Run], chosen: Sequence[str]) -> list[str]:
    """Keys of the resolved configurations that tell runs apart and that no command named, shallowest first."""
    found: list[str] = []
    given = _column(runs, chosen)
    keys = {key for run in runs for key in run.config} - set(chosen)
    for key in sorted(keys, key=lambda name: (name.count("."), len(name), name)):
        if is_seed(key) or not any(decides(key, run.config) for run in runs if key in run.config):
            continue
        values = _column(runs, [key])
        if not _follows(values, given):
            found.append(key)
            given = [a + b for a, b in zip(given, values, strict=True)]
    return found


def _sorted(values: set) -> tuple:
    def rank(value: Any) -> tuple:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (0, value, "") if number else (1, 0, str(value))

    return tuple(sorted(values, key=rank))


def _label(chosen: list[tuple[str, tuple]]) -> list[Factor]:
    tails = [key.rsplit(".", 1)[-1] for key, _ in chosen]
    factors = []
    for (key, values), tail in zip(chosen, tails, strict=True):
        parts = key.split(".")
        distinct = tail if tails.count(tail) == 1 else ".".join(parts[-2:])
        if tail == "temperature" and tails.count(tail) == 1:
            label, short = "temperature T", "T"
        elif len(parts) >= 2 and parts[-2] == "weights":
            label, short = f"weight of {distinct}", distinct
        elif "weights" in parts[:-1]:  # a schedule's argument is called as the weight that it makes
            short = ".".join(parts[parts.index("weights") + 1 :])
            label = f"weight of {short}"
        else:
            label, short = distinct.replace("_", " "), distinct
        factors.append(Factor(key, label, short, values))
    return factors
