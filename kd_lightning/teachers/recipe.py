"""How a teacher is trained, as its YAML's ``train:`` says it, and that as the configuration of a run of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kd_lightning.config.build import fill_auto
from kd_lightning.config.processes import one_process
from kd_lightning.config.rules import Rule
from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.config.targets import TargetProblem, check_target
from kd_lightning.teachers.alone import ALONE_METHOD

PLAIN = {
    "max_epochs": Rule("integer", low=1),
    "seed": Rule("integer", low=0),
    "scheduler_interval": Rule("text", choices=("step", "epoch")),
}
LENGTHS = frozenset({"max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"})
"""Of ``trainer``: how long the student's training is. The teacher's own is ``teacher.train.max_epochs``."""
START = "kd_lightning.teachers.start"
TARGETS = ("optimizer", "scheduler", "teacher", "method", "task")
"""Parts with a ``_target_`` of their own, which is checked as such wherever it stands."""


def check_recipe(recipe: Any) -> None:
    """Raise TargetProblem for the first key of ``train:`` that cannot be meant; its key begins with ``train``."""
    if not isinstance(recipe, Mapping):
        raise TargetProblem("train", f"must be a recipe (max_epochs, optimizer, …) or null, got {recipe!r}")
    for key, value in recipe.items():
        if key in PLAIN:
            problem = PLAIN[key].problem(value)
            if problem is not None:
                raise TargetProblem(f"train.{key}", problem)
        elif key not in TARGETS:
            raise TargetProblem(f"train.{key}", f"no such key{did_you_mean(str(key), {*PLAIN, *TARGETS})}")
        elif value is not None and not isinstance(value, Mapping):
            raise TargetProblem(f"train.{key}", f"must be a mapping, got {value!r}")
    for key in ("max_epochs", "optimizer"):
        if recipe.get(key) is None:
            raise TargetProblem(f"train.{key}", "is missing: a recipe needs it")
    if (recipe.get("teacher") is None) != (recipe.get("method") is None):
        lacking = "method" if recipe.get("method") is None else "teacher"
        raise TargetProblem(f"train.{lacking}", "is missing: a teacher that is distilled needs both teacher and method")


def check_own_data(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise TargetProblem for the first key of a teacher's ``data`` that the run's data do not take."""
    overlay = node.get("data")
    if not overlay:
        return
    try:
        check_target({**config["data"], **overlay})
    except TargetProblem as problem:
        if problem.key in overlay:  # others are the student's data's, and told of there
            raise TargetProblem(f"data.{problem.key}", problem.text) from None


def own_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of the data that a run's teacher is trained on."""
    return {**config["data"], **(config["teacher"].get("data") or {})}


def own_run(config: Mapping[str, Any], sizes: Mapping[str, int], where: str = "teacher") -> dict[str, Any]:
    """The configuration of the teacher's training: its network is the student, its teacher, if any, the teacher.

    Args:
        config: of the run that wants the teacher, whose ``teacher`` has a ``train``.
        sizes: what the network may leave to the data.
        where: the teacher's key, for messages.
    """
    teacher, own = config["teacher"], copy.deepcopy(dict(config))
    recipe = teacher["train"]
    own["data"] = own_data(config)
    own["student"] = copy.deepcopy(teacher["model"])
    if teacher.get("init") is not None or teacher.get("image_size") is not None:
        own["student"] = fill_auto(own["student"], sizes, f"{where}.model")
    if teacher.get("init") is not None:
        own["student"] = {
            "_target_": f"{START}.initialised",
            "model": own["student"],
            "checkpoint": teacher["init"],
            "checkpoint_key": teacher.get("checkpoint_key"),
        }
    if teacher.get("image_size") is not None:
        own["student"] = {"_target_": f"{START}.resizing", "model": own["student"], "image_size": teacher["image_size"]}
    own["teacher"] = _its_teacher(teacher)
    own["method"] = copy.deepcopy(recipe.get("method") or ALONE_METHOD)
    own["task"] = copy.deepcopy(recipe.get("task") or config["task"])
    own["optimizer"] = recipe["optimizer"]
    scheduler = recipe.get("scheduler")
    interval = recipe.get("scheduler_interval")
    own["scheduler"] = {**scheduler, "interval": interval} if scheduler and interval else scheduler
    trainer = one_process(config["trainer"])  # whatever number of processes its student has, it is the same teacher
    shared = {key: value for key, value in trainer.items() if key not in LENGTHS}  # those are the student's
    own["trainer"] = {**shared, "max_epochs": recipe["max_epochs"], "accumulate_grad_batches": 1}
    own["seed"] = recipe.get("seed", 0)
    own["baseline"] = False
    own["early_stopping"] = {"patience": None, "min_delta": 0.0}
    own["pictures"] = {"every_n_epochs": 0, "samples": 0}
    own["channels_last"] = bool(teacher.get("channels_last"))
    own["compile"] = False
    own["stacked"] = None
    own["init_from"] = own["continue_from"] = None
    return own


def _its_teacher(teacher: Mapping[str, Any]) -> dict[str, Any] | None:
    """The teacher's teacher, cached in the same way."""
    own = teacher["train"].get("teacher")
    if not own:
        return None
    cache = {key: teacher[key] for key in ("cache", "cache_precision", "cache_limit_gb") if key in teacher}
    return {**cache, "name": "teacher", **copy.deepcopy(own)}
