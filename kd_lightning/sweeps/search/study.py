"""A study as it is configured: where it is stored, what it optimizes, who samples, who stops a run early."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from kd_lightning.config.build import instantiate
from kd_lightning.errors import UserError
from kd_lightning.runs.result_file import Result
from kd_lightning.sweeps.search.space import Rounding

SAMPLERS = {
    "tpe": "optuna.samplers.TPESampler",
    "random": "optuna.samplers.RandomSampler",
    "nsga2": "optuna.samplers.NSGAIISampler",
    "cmaes": "optuna.samplers.CmaEsSampler",
}
PRUNERS = {
    "median": "optuna.pruners.MedianPruner",
    "hyperband": "optuna.pruners.HyperbandPruner",
    "halving": "optuna.pruners.SuccessiveHalvingPruner",
}
JOURNAL = "optuna.journal"
"""The study's file in a sweep's directory, where no other storage is given."""


@dataclass(frozen=True)
class Objective:
    """What a study optimizes.

    Attributes:
        path: dotted place in a run's result ("student.parameters"), or the name of one of its metrics.
        maximize: the direction.
    """

    path: str
    maximize: bool

    def value(self, result: Result) -> float:
        """The run's figure.

        Raises:
            UserError: its result has none.
        """
        path = self.path if self.path != "monitor" else f"best/val_{result['monitor']['metric']}"
        found: Any = result["metrics"].get(path)
        if found is None:
            found = result
            for key in path.split("."):
                found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            metrics = ", ".join(name for name in result["metrics"] if not name.startswith(("test/", "best_on_test/")))
            raise UserError(
                f"hydra.sweeper.objectives: {self.path}: {result['name']} has no such figure; there are {metrics}, "
                "student.parameters, student.bytes, student.latency_ms, cost.seconds"
            )
        return float(found)


def objectives_of(texts: Sequence[str], monitor_is_maximized: bool) -> list[Objective]:
    """``monitor`` (the task's metric on validation data), ``min:student.parameters`` …

    Raises:
        UserError: a direction is missing, or test data would choose.
    """
    found = []
    for text in texts:
        goal, colon, path = str(text).partition(":")
        if not colon:
            goal, path = "", goal
        if path.startswith(("test/", "best_on_test/")):
            raise UserError(f"hydra.sweeper.objectives: {text}: test data choose nothing: take monitor")
        if path == "monitor" and not goal:
            goal = "max" if monitor_is_maximized else "min"
        if goal not in ("min", "max"):
            raise UserError(f"hydra.sweeper.objectives: {text}: say which way is better: min:{path} or max:{path}")
        found.append(Objective(path, goal == "max"))
    if not found:
        raise UserError("hydra.sweeper.objectives: none is given: [monitor]")
    return found


def storage_of(text: str) -> BaseStorage:
    """A journal file (any number of processes on one file system), or a database by its URL.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        if "://" in text:
            return optuna.storages.RDBStorage(text)
        Path(text).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(text))
    except Exception as error:  # whatever a database's driver raises
        raise UserError(f"hydra.sweeper.storage={text}: cannot be opened: {' '.join(str(error).split())}") from error


def sampler_of(node: Any, seed: int | None) -> BaseSampler:
    """One of :data:`SAMPLERS` by its short name, or any class by ``_target_``."""
    given = {} if seed is None else {"seed": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = _made(node, SAMPLERS, "sampler", given)
    if not isinstance(sampler, BaseSampler):
        raise UserError(f"hydra.sweeper.sampler={node}: is no sampler of Optuna's")
    return Rounding(sampler)


def pruner_of(node: Any, max_epochs: int | None) -> BasePruner | None:
    """One of :data:`PRUNERS` by its short name, any class by ``_target_``, or None for "none".

    A study knows an epoch as one step; ``max_epochs`` is the most that Hyperband shares out.
    """
    if node is None or node == "none":
        return None
    given: dict[str, Any] = {}
    if node == "hyperband":
        given = {"min_resource": 1, "max_resource": max_epochs or "auto", "reduction_factor": 3}
    elif node == "median":
        given = {"n_startup_trials": 5, "n_warmup_steps": 1}
    pruner = _made(node, PRUNERS, "pruner", given)
    if not isinstance(pruner, BasePruner):
        raise UserError(f"hydra.sweeper.pruner={node}: is no pruner of Optuna's")
    return pruner


def _made(node: Any, known: Mapping[str, str], key: str, given: Mapping[str, Any]) -> Any:
    where = f"hydra.sweeper.{key}"
    if isinstance(node, str):
        if node not in known:
            names = ", ".join([*known, *(["none"] if key == "pruner" else [])])
            raise UserError(f"{where}={node}: use {names}, or a class: {where}={{_target_: optuna.{key}s.…}}")
        return instantiate({"_target_": known[node], **given}, where)
    if isinstance(node, Mapping) and "_target_" in node:
        own = {k: v for k, v in given.items() if k not in node}
        return instantiate({**own, **node}, where)
    return node  # made already, as part of a judge
