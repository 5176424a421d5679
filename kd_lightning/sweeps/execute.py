"""From wanted runs to finished ones: skip what is there, group what can share, train, and say what is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_datamodule, build_task
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.runs.result_file import read_result, write_result
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.sweeps.group import Group
from kd_lightning.sweeps.memory import members_that_fit
from kd_lightning.teachers.cache import open_or_write_cache
from kd_lightning.teachers.registry import obtain_teacher

log = logging.getLogger(__name__)

Result = dict[str, Any]


def execute(
    specs: Sequence[RunSpec],
    *,
    fuse: bool = True,
    finished: Callable[[Sequence[Result]], None] | None = None,
    display: Callable[[Sequence[str]], Any] | None = None,
    log_file: str | None = None,
) -> list[Result]:
    """Compute the runs that have no result yet.

    Args:
        specs: the wanted runs; those of role "alone" serve the others as baseline.
        fuse: train runs that agree in data, task, teacher and trainer in lockstep.
        finished: told of the results of each group as soon as they are written.
        display: makes a progress display (a context manager with ``update``) for a list of run names.
        log_file: name of the log file in each run's directory.

    Returns:
        One result a spec, in order; a run that failed has status "failed" and never keeps others from running.
        After an interruption the runs that were not finished are "interrupted".
    """
    results: dict[Path, Result] = {}
    todo = []
    for spec in specs:
        done = finished_result(spec)
        if done is None:
            todo.append(spec)
        else:
            log.info("%s is finished already: %s", spec.name, spec.run_dir)
            results[spec.run_dir] = done
    interrupted = False
    for group in grouped(todo, fuse):
        if interrupted:
            results |= {spec.run_dir: pending(spec, "interrupted", None) for spec in group}
            continue
        try:
            made = train_group(group, display, log_file)
        except RunInterrupted as error:
            log.warning("%s", error)
            interrupted = True
            made = [read_result(spec.result_path) or pending(spec, "interrupted", None) for spec in group]
        except Exception as error:
            if isinstance(error, UserError) and len(specs) == 1:
                raise
            log.error(
                "%s: %s", ", ".join(spec.name for spec in group), error, exc_info=not isinstance(error, UserError)
            )
            made = [read_failed(spec, error) for spec in group]
        results |= {spec.run_dir: result for spec, result in zip(group, made, strict=True)}
        link_baselines(group, results)
        if finished is not None:
            finished(made)
    return [results[spec.run_dir] for spec in specs]


def finished_result(spec: RunSpec) -> Result | None:
    """The stored result, if it is of this very configuration and complete."""
    result = read_result(spec.result_path, strict=False)
    if result is None or result.get("fingerprint") != spec.fingerprint or result.get("status") != "finished":
        return None
    return result


def grouped(specs: Sequence[RunSpec], fuse: bool) -> list[list[RunSpec]]:
    """The specs in groups that can train in lockstep, as large as memory allows."""
    groups: dict[str, list[RunSpec]] = {}
    for number, spec in enumerate(specs):
        reason = alone_because(spec) if fuse else "launcher=local"
        if reason and fuse and len(specs) > 1:
            log.info("%s runs alone: %s", spec.name, reason)
        groups.setdefault(spec.group_key if not reason else f"{number}", []).append(spec)
    parts = []
    for members in groups.values():
        size = members[0].config.get("max_fused") or len(members)
        parts.extend(members[start : start + size] for start in range(0, len(members), size))
    return parts


def alone_because(spec: RunSpec) -> str | None:
    """Why a run cannot share a group, or None."""
    trainer = spec.config["trainer"]
    if spec.config.get("callbacks"):
        return "it has Lightning callbacks of its own (callbacks)"
    devices = trainer.get("devices", 1)
    if devices not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1:
        return f"it trains on several devices (trainer.devices={devices})"
    if trainer.get("strategy", "auto") not in ("auto", None):
        return f"it has a strategy of its own (trainer.strategy={trainer['strategy']})"
    if str(trainer.get("precision", "32-true")).endswith("-true") and trainer["precision"] != "32-true":
        return f"its precision is the whole module's (trainer.precision={trainer['precision']})"
    return None


def train_group(
    specs: Sequence[RunSpec], display: Callable[[Sequence[str]], Any] | None, log_file: str | None
) -> list[Result]:
    """Data, teacher, students: train one group to its end, in parts if memory asks for it."""
    config = specs[0].config
    datamodule = build_datamodule(config)

    def train(spec: RunSpec) -> Result:
        return train_group([spec], display, log_file)[0]

    teacher, info = obtain_teacher(config, datamodule, teacher_layers(specs), train)
    results = []
    size = members_that_fit(specs, datamodule) if len(specs) > 1 else 1
    for start in range(0, len(specs), size):
        part = specs[start : start + size]
        shown = display([spec.name for spec in part]) if display else None
        training = training_teacher(part, teacher, datamodule)
        group = Group(part, datamodule, teacher, info, training, shown, log_file)
        if shown is None:
            results.extend(group.run())
        else:
            with shown:
                results.extend(group.run())
    warn_about_teacher(results, build_task(config), datamodule)
    return results


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


def link_baselines(specs: Sequence[RunSpec], results: Mapping[Path, Result]) -> None:
    """Tell each distilled run's result about the student alone with the same seed, if there is one."""
    for spec in specs:
        result, baseline = results[spec.run_dir], spec.baseline
        if baseline is None or result["status"] != "finished":
            continue
        alone = finished_result(baseline)
        if alone is None:
            continue
        metric = alone["monitor"]["metric"]
        entry = {k: alone["metrics"].get(k) for k in (f"test/{metric}", "test/agreement", f"best/val_{metric}")}
        entry |= {"run_dir": str(baseline.run_dir), "student": alone["student"]}
        if result["baseline"] != entry:
            result["baseline"] = entry
            write_result(spec.result_path, result)


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


def warn_about_teacher(results: Sequence[Result], task: Any, datamodule: Any) -> None:
    """Say loudly what a teacher does that no student should learn from."""
    taught = [r for r in results if r["teacher"] is not None]
    if not taught or not hasattr(task, "chance"):
        return
    metric = f"val/{task.monitor}"
    value = taught[0]["teacher"].get(metric)
    if value is None:
        return
    sign = 1 if task.mode == "max" else -1
    name = taught[0]["teacher"]["name"]
    if sign * value <= sign * task.chance(datamodule.num_classes) * 1.2:
        log.warning(
            "WARNING: the teacher %s is no better than chance (%s %.3f): check its checkpoint, its normalization "
            "(teacher.normalization) and that its classes are numbered as the data's",
            name, metric, value,
        )  # fmt: skip
        return
    alone = [r["metrics"].get(f"best/val_{task.monitor}") for r in taught if r["role"] == ALONE]
    better = [a for a in alone if a is not None and sign * a > sign * value]
    if better:
        log.warning(
            "WARNING: the student alone (%s %.3f) beats the teacher %s (%.3f): train the teacher longer "
            "(teacher.train.max_epochs) or choose a larger one",
            metric, max(better, key=lambda a: sign * a), name, value,
        )  # fmt: skip


def pending(spec: RunSpec, status: str, error: str | None) -> Result:
    """What is said of a run that has no result file."""
    return {
        "status": status,
        "name": spec.name,
        "role": spec.role,
        "fingerprint": spec.fingerprint,
        "seed": spec.seed,
        "overrides": list(spec.overrides),
        "metrics": {},
        "teacher": None,
        "baseline": None,
        "student": None,
        "error": error,
        "run_dir": str(spec.run_dir),
        "config": spec.config,
    }


def read_failed(spec: RunSpec, error: Exception) -> Result:
    """The result of a run whose group could not be trained: from disk, or made and written now."""
    stored = read_result(spec.result_path, strict=False)
    if stored is not None and stored.get("fingerprint") == spec.fingerprint:
        return stored
    text = " ".join(str(error).split()) or type(error).__name__
    result = pending(spec, "failed", text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")
    try:
        write_result(spec.result_path, result)
    except OSError as problem:
        log.error("%s: result.json could not be written (%s)", spec.run_dir, problem)
    return result
