"""The resolvers that our configs use; importing this module registers them.

Every process that evaluates a config needs them: the command, the launchers and the cluster's workers all import it.
"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from kd_lightning.config import names


def _default(value: Any, otherwise: Any) -> Any:
    """``${kd_default:${key},otherwise}``: the key's value, or ``otherwise`` where it is null."""
    return otherwise if value is None else value


def _rest(share: float) -> float:
    """``${kd_rest:${method.weights.kd}}``: what is left of 1, without the last digits of binary fractions."""
    return round(1 - float(share), 12)


def _direction(task: Any) -> str:
    """``${kd_direction:${task}}``: "minimize" or "maximize", as the task's monitored metric has it, for a search."""
    from kd_lightning.config.build import build_task  # torch and all: only where a search starts
    from kd_lightning.metrics.declared import Declared

    made = build_task({"task": OmegaConf.to_container(task, resolve=True)})
    return f"{Declared(made.metrics, made.monitor).monitored.mode}imize"


OmegaConf.register_new_resolver("kd_default", _default, replace=True)
OmegaConf.register_new_resolver("kd_rest", _rest, replace=True)
OmegaConf.register_new_resolver("kd_direction", _direction, replace=True)
names.register_resolver()
