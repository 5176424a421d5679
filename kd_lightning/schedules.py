"""Learning-rate schedules: any of torch's by name, told how long the run is."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def make_scheduler(
    factory: Callable[..., Any] | None, optimizer: Optimizer, interval: str, epochs: int, steps_per_epoch: int
) -> Any:
    """Call ``factory(optimizer)``, adding the run's length where the signature asks for it and it is not given.

    Args:
        factory: a partial such as ``partial(OneCycleLR, max_lr=0.1)``; None for a constant learning rate.
        optimizer: whose learning rate is scheduled.
        interval: "step" or "epoch"; the unit of ``total_steps`` and ``T_max``.
        epochs: length of the run.
        steps_per_epoch: optimizer steps in one epoch.
    """
    if factory is None:
        return None
    total = epochs * steps_per_epoch if interval == "step" else epochs
    lengths = {"total_steps": total, "T_max": total, "epochs": epochs, "steps_per_epoch": steps_per_epoch}
    given = factory.keywords if isinstance(factory, functools.partial) else {}
    accepted = inspect.signature(factory).parameters
    wanted = {k: v for k, v in lengths.items() if k in accepted and given.get(k) is None}
    if "total_steps" in wanted:  # OneCycleLR takes either the total or its two factors
        wanted = {"total_steps": total}
    return factory(optimizer, **wanted)


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
