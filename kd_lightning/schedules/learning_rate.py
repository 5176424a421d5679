"""Learning-rate schedules: any of torch's by name, told how long the run is."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from kd_lightning.errors import UserError


class RunLength(NamedTuple):
    """How long a run is, in optimizer steps.

    Attributes:
        total_steps: of the whole run; None where nobody knows beforehand.
        steps_per_epoch: of one epoch; at most ``total_steps``.
    """

    total_steps: int | None
    steps_per_epoch: int


_MOMENTA = {"momentum", "betas"}


def make_scheduler(
    factory: Callable[..., Any] | None, optimizer: Optimizer, interval: str, length: RunLength, mode: str = "min"
) -> Any:
    """Call ``factory(optimizer)``, adding what its signature asks for and is not given: lengths, the metric's direction.

    Where groups of parameters have learning rates of their own, a single ``max_lr`` (``base_lr``) keeps their ratios.

    Args:
        factory: a partial such as ``partial(OneCycleLR, max_lr=0.1)``; None for a constant learning rate.
        optimizer: whose learning rate is scheduled.
        interval: "step" or "epoch"; the unit of ``total_steps`` and ``T_max``.
        length: of the run.
        mode: "max" or "min": which values are better, for a scheduler that follows a metric.

    Raises:
        UserError: the scheduler wants a length that nobody knows.
    """
    if factory is None:
        return None
    given = _given(factory)
    accepted = inspect.signature(factory).parameters
    wanted = _wanted_lengths(factory)
    added = _lengths(length, interval, _name(factory), wanted)
    if _class(factory) is ReduceLROnPlateau and "mode" not in given:
        added["mode"] = mode
    if "cycle_momentum" in accepted and "cycle_momentum" not in given and not optimizer.defaults.keys() & _MOMENTA:
        added["cycle_momentum"] = False  # such a scheduler would refuse an optimizer without one momentum to cycle
    base = optimizer.defaults.get("lr")
    ratios = [group["lr"] / base for group in optimizer.param_groups] if base else []
    for name in ("max_lr", "base_lr"):
        if isinstance(given.get(name), (int, float)) and any(ratio != 1 for ratio in ratios):
            added[name] = [given[name] * ratio for ratio in ratios]
    return factory(optimizer, **added)


def spans_run(factory: Callable[..., Any]) -> bool:
    """Whether a schedule is another one where the run is longer."""
    return bool(_wanted_lengths(factory) - {"steps_per_epoch"})


def _given(factory: Callable[..., Any]) -> dict[str, Any]:
    return factory.keywords if isinstance(factory, functools.partial) else {}


def _wanted_lengths(factory: Callable[..., Any]) -> set[str]:
    """Lengths that a schedule's signature has and that are not given."""
    given, accepted = _given(factory), inspect.signature(factory).parameters
    wanted = {
        name
        for name in ("total_steps", "T_max", "epochs", "steps_per_epoch")
        if name in accepted and given.get(name) is None
    }
    return (
        {"total_steps"} if "total_steps" in wanted else wanted
    )  # OneCycleLR takes either the total or its two factors


def wants_metric(scheduler: Any) -> bool:
    """Whether ``scheduler.step`` needs a metric, as ReduceLROnPlateau's does."""
    parameter = inspect.signature(scheduler.step).parameters.get("metrics")
    return parameter is not None and parameter.default is parameter.empty


def _lengths(length: RunLength, interval: str, name: str, wanted: set[str]) -> dict[str, Any]:
    if not wanted:
        return {}
    if length.total_steps is None:
        raise UserError(
            f"scheduler: {name} needs to know how long the run is: set trainer.max_epochs or trainer.max_steps"
        )
    epochs = math.ceil(length.total_steps / length.steps_per_epoch)
    total = length.total_steps if interval == "step" else epochs
    known = {"total_steps": total, "T_max": total, "epochs": epochs, "steps_per_epoch": length.steps_per_epoch}
    return {key: known[key] for key in wanted}


def _class(factory: Callable[..., Any]) -> Any:
    return factory.func if isinstance(factory, functools.partial) else factory


def _name(factory: Callable[..., Any]) -> str:
    return getattr(_class(factory), "__name__", type(factory).__name__)


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final_fraction: float = 0.0
) -> LambdaLR:
    """Linear warm-up over the first ``warmup`` share of the run, then a half cosine down to ``final_fraction``.

    Args:
        optimizer: its learning rates are the peak.
        total_steps: length of the run, in scheduler steps.
        warmup: share of the run, in [0, 1).
        final_fraction: last learning rate as a fraction of the peak.
    """
    warmup_steps = int(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
