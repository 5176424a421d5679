"""From wanted runs to finished ones: skip what is there, group what can share, train, and say what is left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_datamodule, build_task
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.runs.directory import held
from kd_lightning.runs.interrupt import stoppable
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.sweeps.group import Group
from kd_lightning.sweeps.memory import members_that_fit
from kd_lightning.sweeps.outcome import (
    Result,
    failed_result,
    finished_result,
    link_baselines,
    pending,
    refuse_other_run,
    warn_about_teacher,
)
from kd_lightning.teachers.cache import open_or_write_cache
from kd_lightning.teachers.registry import obtain_teacher

log = logging.getLogger(__name__)

Display = Callable[[Sequence[str]], Any]


def execute(
    specs: Sequence[RunSpec],
    *,
    fuse: bool = True,
    finished: Callable[[Sequence[Result]], None] | None = None,
    display: Display | None = None,
    log_file: str | None = None,
) -> list[Result]:
    """Compute the runs that have no result yet.

    Args:
        specs: the wanted runs; those of role "alone" serve the others as baseline.
        fuse: train runs that agree in data, task, teacher and trainer in lockstep.
        finished: told of the results of runs that trained together as soon as they are written.
        display: makes a progress display (a context manager with ``update``) for a list of run names.
        log_file: name of the log file in each run's directory.

    Returns:
        One result a spec, in order; a run that failed has status "failed" and never keeps others from running.
        After an interruption the runs that were not finished are "interrupted".

    Raises:
        UserError: one mistake of the user's (data, teacher, directory) stops every run that was left to do.
    """
    results: dict[Path, Result] = {}
    todo = []
    for spec in specs:
        done = finished_result(spec)
        if done is None:
            refuse_other_run(spec)
            todo.append(spec)
        else:
            log.info("%s is finished already: %s", spec.name, spec.run_dir)
            results[spec.run_dir] = done
    groups = grouped(todo, fuse)
    try:
        with stoppable():
            for group in groups:
                with failing_alone(group, results, only=len(groups) == 1):
                    shared = Shared(group, log_file, display)
                    parts = shared.parts()
                    for part in parts:
                        with failing_alone(part, results, only=len(groups) == len(parts) == 1):
                            results |= shared.train(part)
                            link_baselines(specs, results)
                        if finished is not None:
                            finished([results[spec.run_dir] for spec in part])
                    warn_about_teacher(group, results, build_task(shared.config), shared.datamodule.num_classes)
                    shared.datamodule.teardown("fit")  # says how many unreadable images were left out
            link_baselines(specs, results)
    except (RunInterrupted, KeyboardInterrupt) as error:
        log.warning("%s", error if isinstance(error, RunInterrupted) else "stopped")
    return [results.get(s.run_dir) or finished_result(s) or pending(s, "interrupted") for s in specs]


@contextlib.contextmanager
def failing_alone(specs: Sequence[RunSpec], results: dict[Path, Result], only: bool) -> Iterator[None]:
    """What goes wrong inside is these runs' failure; a mistake of the user's is raised if they are the only ones."""
    try:
        yield
    except RunInterrupted:
        raise
    except Exception as error:
        if only and isinstance(error, UserError):
            raise
        left = [spec for spec in specs if spec.run_dir not in results]
        log.error("%s: %s", ", ".join(s.name for s in left), error, exc_info=not isinstance(error, UserError))
        results |= {spec.run_dir: failed_result(spec, error) for spec in left}


class Shared:
    """What the runs of a group have in common: the data, the teacher, and its stored outputs.

    Args:
        specs: the runs.
        log_file: name of the log file in each run's directory.
        display: see :func:`execute`.

    Raises:
        UserError: the data or the teacher cannot be had.
        RunInterrupted: a signal asked to stop while the teacher was trained.
    """

    def __init__(self, specs: Sequence[RunSpec], log_file: str | None, display: Display | None) -> None:
        self.specs, self.config = list(specs), specs[0].config
        self.log_file, self.display = log_file, display
        require_one_device(self.config)
        self.datamodule = build_datamodule(self.config)
        self.teacher, self.teacher_info = obtain_teacher(
            self.config, self.datamodule, teacher_layers(specs), lambda spec: train_alone(spec, log_file, display)
        )
        self.training = training_teacher(specs, self.teacher, self.datamodule)

    def parts(self) -> list[list[RunSpec]]:
        """The runs in parts that fit into memory together."""
        size = members_that_fit(self.specs, self.datamodule) if len(self.specs) > 1 else 1
        return [self.specs[start : start + size] for start in range(0, len(self.specs), size)]

    def train(self, part: Sequence[RunSpec]) -> dict[Path, Result]:
        """Train some of the runs side by side.

        A run whose directory another process holds is left to that process, and fails here.
        """
        results: dict[Path, Result] = {}
        with contextlib.ExitStack() as stack:
            mine = []
            for spec in part:
                try:
                    stack.enter_context(held(spec))
                except UserError as error:
                    if len(self.specs) == 1:
                        raise
                    log.error("%s", error)
                    results[spec.run_dir] = pending(spec, "failed", str(error))
                    continue
                done = finished_result(spec)  # by another process, in the meantime
                if done is None:
                    mine.append(spec)
                else:
                    results[spec.run_dir] = done
            if mine:
                shown = self.display([spec.name for spec in mine]) if self.display else None
                group = Group(
                    mine, self.datamodule, self.teacher, self.teacher_info, self.training, shown, self.log_file
                )
                with shown or contextlib.nullcontext():
                    made = group.run()
                results |= {spec.run_dir: result for spec, result in zip(mine, made, strict=True)}
        return {spec.run_dir: results[spec.run_dir] for spec in part}


def train_alone(spec: RunSpec, log_file: str | None, display: Display | None) -> Result:
    """Train one run, for example a teacher, by itself."""
    return Shared([spec], log_file, display).train([spec])[spec.run_dir]


def grouped(specs: Sequence[RunSpec], fuse: bool) -> list[list[RunSpec]]:
    """The specs in groups that can train in lockstep."""
    groups: dict[Any, list[RunSpec]] = {}
    for number, spec in enumerate(specs):
        reason = alone_because(spec) if fuse else "launcher=local"
        if reason and fuse and len(specs) > 1:
            log.info("%s runs alone: %s", spec.name, reason)
        # Stored outputs are rounded and hold no features, so whether a group reads them must not depend on its company.
        key = number if reason else (spec.group_key, bool(teacher_layers([spec])))
        groups.setdefault(key, []).append(spec)
    return list(groups.values())


def alone_because(spec: RunSpec) -> str | None:
    """Why a run cannot share a group, or None."""
    trainer = spec.config["trainer"]
    if spec.config.get("callbacks"):
        return "it has Lightning callbacks of its own (callbacks)"
    if str(trainer.get("precision", "32-true")).endswith("-true") and trainer["precision"] != "32-true":
        return f"its precision is the whole module's (trainer.precision={trainer['precision']})"
    return None


def require_one_device(config: Mapping[str, Any]) -> None:
    """Stop where the configuration asks for data-parallel training, which these commands do not start.

    Raises:
        UserError: ``trainer.devices`` is not 1, or there are several nodes, or a strategy over several devices.
    """
    trainer = config["trainer"]
    allowed = {"devices": (1, "1"), "num_nodes": (1,), "strategy": ("auto", None)}
    for key, values in allowed.items():
        if key in trainer and trainer[key] not in values:
            raise UserError(
                f"trainer.{key}={trainer[key]}: a run trains on one device here; for data-parallel training give a "
                "Distiller to a Trainer of your own"
            )


def training_teacher(specs: Sequence[RunSpec], teacher: Any, datamodule: Any) -> Any:
    """Who answers for training batches: the teacher, or its stored outputs where that pays."""
    config = specs[0].config
    if teacher is None or all(spec.role == ALONE for spec in specs):
        return teacher
    node = config["teacher"]
    return open_or_write_cache(
        teacher,
        datamodule,
        node.get("cache", "auto"),
        directory=config["paths"]["cache_dir"],
        epochs=config["trainer"].get("max_epochs"),
        precision=node.get("cache_precision", "fp16"),
        top_k=node.get("cache_top_k"),
        limit_gb=node.get("cache_limit_gb"),
        needs_features=bool(teacher_layers(specs)),
        announce=log.info,
    )


def teacher_layers(specs: Sequence[RunSpec]) -> set[str]:
    """Teacher layers whose features some run's method looks at."""
    layers: set[str] = set()
    for spec in specs:
        taps = (spec.config["method"].get("taps") or {}).get("teacher") or {}
        layers |= set(taps.values())
    return layers


def with_baselines(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs and, before them, each student alone that they want to be compared with, once."""
    wanted = {spec.fingerprint: spec for spec in specs if spec.role == ALONE}  # method=none as a job of its own
    alone: dict[str, RunSpec] = {}
    out = []
    for spec in specs:
        if spec.baseline is not None:
            same = wanted.get(spec.baseline.fingerprint) or alone.setdefault(spec.baseline.fingerprint, spec.baseline)
            spec = replace(spec, baseline=same)
        out.append(spec)
    return [*alone.values(), *out]
