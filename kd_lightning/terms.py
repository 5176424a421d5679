"""What a loss term may ask of its method: by the names of its ``forward``'s parameters, or by a member that it has."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import LOGITS, PROBABILITIES, UNNORMALISED, VALUES, Clock, View
from kd_lightning.schedules.values import as_schedule

ASKABLE = ("index", "clock", "views", "batch")
"""What a term's ``forward`` may ask for, by the names of its parameters after ``student, teacher, target``."""


def asked_for(name: str, term: nn.Module) -> tuple[str, ...]:
    """Names of what a term's ``forward`` takes after ``student, teacher, target``."""
    try:
        parameters = list(inspect.signature(term.forward).parameters.values())
    except (TypeError, ValueError):  # a compiled one without a readable signature
        return ()
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_place) < 3 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        taken = ", ".join(p.name for p in parameters)
        raise UserError(f"method.terms.{name}: forward must take (student, teacher, target), it takes ({taken})")
    further = [*by_place[3:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    for parameter in further:
        if parameter.name not in ASKABLE:
            close = difflib.get_close_matches(parameter.name, ASKABLE, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"method.terms.{name}: forward asks for {parameter.name!r}, which a term cannot get; there is "
                f"{', '.join(ASKABLE)} (a setting belongs into __init__){meant}"
            )
    return tuple(parameter.name for parameter in further)


def given(term: str, what: str, clock: Clock | None, batch: Batch | None, views: Sequence[View]) -> Any:
    """What a term asked for."""
    if what == "clock":
        return clock
    if what == "batch":
        return batch
    if what == "views":
        if not views:
            raise UserError(f"method.terms.{term} asks for views, the batches hold one view only: set data.extra_views")
        return list(views)
    if batch is None or batch.index is None:
        raise UserError(
            f"method.terms.{term} asks for index, the loader gives none: let the data set yield (inputs, target, index)"
        )
    return batch.index


def needs_teacher(term: object) -> bool:
    """False for a term, or a class of terms, that says ``needs_teacher = False``: it may be called with ``teacher=None``."""
    return bool(getattr(term, "needs_teacher", True))


def highest_temperature(term: nn.Module) -> float:
    """The highest temperature at which a term, or one inside it, softens the teacher's logits.

    0 where it does not read them; infinity where it looks at them as they are, or nobody knows a schedule's bounds. Asked
    before schedules are replaced by their values.
    """
    reads = frozenset(getattr(term, "requires", {LOGITS}))
    if not needs_teacher(term) or not reads & {LOGITS, UNNORMALISED, PROBABILITIES, VALUES}:
        return 0.0
    if reads & {UNNORMALISED, VALUES} or any(getattr(part, "standardise", False) is True for part in term.modules()):
        return math.inf
    found: list[Any] = []
    for part in term.modules():
        found += [getattr(part, n) for n in dir(part) if n == "temperature" or n.endswith("_temperature")]
        found += getattr(part, "temperatures", ())
    return max((_highest(value) for value in found), default=math.inf)


def _highest(temperature: Any) -> float:
    schedule = as_schedule(temperature)
    if schedule is not None:
        return schedule.highest
    return float(temperature) if isinstance(temperature, (int, float)) else math.inf


def disown(term: nn.Module, models: Iterable[nn.Module | None]) -> None:
    """Let a term keep models (or parts of them) as plain attributes: they are not its own to train, move or store."""
    foreign = {id(part) for model in models if model is not None for part in model.modules()}
    for part in [part for part in term.modules() if id(part) not in foreign]:
        for attribute, child in list(part.named_children()):
            if id(child) in foreign:
                delattr(part, attribute)
                object.__setattr__(part, attribute, child)  # past nn.Module's registration
