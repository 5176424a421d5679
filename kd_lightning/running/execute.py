"""From wanted runs to finished ones: skip what is there, group what can share, train, and say what is left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.running.outcome import (
    Result,
    failed_result,
    finished_result,
    link_baselines,
    pending,
    refuse_other_run,
    warn_about_teacher,
)
from kd_lightning.running.shared import Display, Shared, teacher_layers
from kd_lightning.runs.interrupt import stoppable
from kd_lightning.runs.spec import ALONE, RunSpec

log = logging.getLogger(__name__)


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
                    warn_about_teacher(group, results)
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
