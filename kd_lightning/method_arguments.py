"""What a method is given, checked: weights, temperature and taps; each error names the configuration key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature
from kd_lightning.schedules.values import START, Schedule, as_schedule, value_now

TASK = "task"
ROLES = ("student", "teacher")


def weight_schedules(weights: Mapping[str, Any] | None) -> dict[str, Schedule]:
    """Those weights that are no numbers but functions of the clock."""
    made = {name: as_schedule(value) for name, value in (weights or {}).items()}
    return {name: schedule for name, schedule in made.items() if schedule is not None}


def checked_weights(
    weights: Mapping[str, Any], names: list[str], schedules: Mapping[str, Schedule]
) -> dict[str, float]:
    """The weights of all ``names`` as they are at the start."""
    weights = dict(weights or {})
    for name in weights:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            meant = f"did you mean method.weights.{close[0]}?" if close else f"known are {', '.join(names)}"
            raise UserError(f"method.weights.{name}: there is no such term; {meant}")
    for name in names:
        if name not in weights:
            raise UserError(f"method.weights.{name} is missing: each term needs a weight (0 switches it off)")
        value = weights[name]
        if name in schedules:
            if not schedules[name].highest > 0:
                raise UserError(f"method.weights.{name}: {schedules[name]!r} never leaves 0: write 0, or raise it")
            weights[name] = value_now(schedules[name], START, f"method.weights.{name}")
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"method.weights.{name} must be a number >= 0, got {value!r}")
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"method.weights.{name} must be a finite number >= 0, got {value}")
    if not schedules and not any(weights.values()):
        keys = ", ".join(f"method.weights.{name}" for name in names)
        raise UserError(f"all weights are 0, nothing would be learned: set one of {keys} above 0")
    return {name: float(weights[name]) for name in names}


def start_temperature(temperature: Any, schedule: Schedule | None) -> float | None:
    """The shared temperature as it is at the start."""
    if temperature is None:
        return None
    checked_temperature(temperature)
    return float(temperature) if schedule is None else value_now(schedule, START, "method.temperature", above=True)


def scheduled_attributes(terms: nn.ModuleDict) -> list[tuple[nn.Module, str, Schedule, str]]:
    """Every attribute of a term that was given a schedule in place of a number: module, name, schedule, config key."""
    return [
        (module, attribute, value, f"method.terms.{name}.{attribute}")
        for name, term in terms.items()
        for module in term.modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Schedule)
    ]


def checked_taps(taps: Mapping[str, Mapping[str, str]] | str | None) -> dict[str, dict[str, str]]:
    """The taps of both models, by tap name; none yet where they are still to be chosen (``auto``)."""
    if isinstance(taps, str):
        if taps != "auto":
            raise UserError(
                f"method.taps={taps}: must be auto, or layers' names by tap: {{student: {{}}, teacher: {{}}}}"
            )
        taps = None
    taps = dict(taps or {})
    for role in taps:
        if role not in ROLES:
            raise UserError(f"method.taps.{role}: taps belong to {' or '.join(ROLES)}")
    return {role: dict(taps.get(role) or {}) for role in ROLES}
