"""What is known of a run from the outside: whether it is finished, what stands in for its result, its baseline."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_task
from kd_lightning.errors import UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.verdicts import behind
from kd_lightning.runs.checkpoint import load_checkpoint
from kd_lightning.runs.result_file import read_result, write_result
from kd_lightning.runs.spec import ALONE, RunSpec

log = logging.getLogger(__name__)

Result = dict[str, Any]


def finished_result(spec: RunSpec) -> Result | None:
    """The stored result, if it is of this very configuration and complete."""
    result = read_result(spec.result_path, strict=False)
    if result is None or result.get("fingerprint") != spec.fingerprint or result.get("status") != "finished":
        return None
    return result


def other_run_in(spec: RunSpec) -> bool:
    """Whether the run's directory holds checkpoints of a run with another configuration.

    A run that got nowhere (no checkpoint) leaves nothing to lose: its directory can be used again.
    """
    checkpoints = [path for path in (spec.last_checkpoint, spec.best_checkpoint) if path.is_file()]
    if not checkpoints:
        return False
    holder = read_result(spec.result_path, strict=False)
    for path in checkpoints:
        if holder is not None:
            break
        try:
            holder = load_checkpoint(path, "run_dir")
        except UserError:  # damaged: the other may be whole
            continue
    return holder is not None and holder.get("fingerprint") != spec.fingerprint


def refuse_other_run(spec: RunSpec) -> None:
    """Raise a UserError rather than mix two runs in one directory."""
    if other_run_in(spec):
        raise UserError(
            f"run_dir={spec.run_dir}: holds a run with another configuration (see its .hydra/config.yaml); "
            "choose another directory"
        )


def pending(spec: RunSpec, status: str, error: str | None = None) -> Result:
    """What is said of a run that has no result of its own."""
    return {
        "status": status,
        "name": spec.name,
        "role": spec.role,
        "fingerprint": spec.fingerprint,
        "seed": spec.seed,
        "overrides": list(spec.overrides),
        **declared(spec),
        "metrics": {},
        "teacher": None,
        "baseline": None,
        "student": None,
        "error": error,
        "config": spec.config,
    }


def declared(spec: RunSpec) -> dict[str, Any]:
    """What the run's task says of its metrics; nothing if the task itself is what is wrong."""
    try:
        task = build_task(spec.config)
    except UserError:
        return {"task": "", "monitor": {"metric": "", "mode": "max"}, "declared": []}
    known = Declared(task.metrics, task.monitor)
    return {
        "task": task.name,
        "monitor": {"metric": task.monitor, "mode": known.monitored.mode},
        "declared": known.as_plain(),
    }


def failed_result(spec: RunSpec, error: Exception) -> Result:
    """The result, written as well, of a run that could not be trained for a reason outside of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    result = pending(spec, "failed", text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")
    write_where_possible(spec, result)
    return result


def write_where_possible(spec: RunSpec, result: Mapping[str, Any]) -> None:
    """Write ``result.json``; a full disk is told and does not keep other runs from ending well."""
    try:
        write_result(spec.result_path, result)
    except OSError as error:
        log.error("%s could not be written (%s): make space and start again", spec.result_path, error.strerror or error)


def with_own_result(specs: Iterable[RunSpec], results: Mapping[Path, Result]) -> list[RunSpec]:
    """The specs whose finished result is among ``results``."""
    return [s for s in specs if s.run_dir in results and results[s.run_dir]["status"] == "finished"]


def link_baselines(specs: Sequence[RunSpec], results: Mapping[Path, Result]) -> None:
    """Tell each distilled run's result about the student alone with the same seed, if there is one."""
    for spec in with_own_result(specs, results):
        remove_torn(spec)
        alone = finished_result(spec.baseline) if spec.baseline is not None else None
        if alone is None:
            continue
        result, metric = results[spec.run_dir], alone["monitor"]["metric"]
        fidelity = Declared.of_result(alone).fidelity(name for name in alone["metrics"] if name.startswith("test/"))
        entry = {k: alone["metrics"].get(k) for k in (f"test/{metric}", *fidelity, f"best/val_{metric}")}
        entry |= {"run_dir": str(spec.baseline.run_dir), "student": alone["student"]}
        if result.get("baseline") != entry:
            result["baseline"] = entry
            write_where_possible(spec, result)


def remove_torn(spec: RunSpec) -> None:
    """Remove what a process that was killed while it wrote the result left beside it.

    A file younger than half a second is left: another process may be writing it.
    """
    for torn in spec.run_dir.glob(f".{spec.result_path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # it was renamed into place
            if time.time() - torn.stat().st_mtime > 0.5:
                torn.unlink()


def warn_about_teacher(specs: Sequence[RunSpec], results: Mapping[Path, Result]) -> None:
    """Say loudly what a teacher does that no student should learn from.

    Args:
        specs: runs of one teacher.
        results: theirs, and those of other runs.
    """
    finished = [results[spec.run_dir] for spec in with_own_result(specs, results)]
    taught = next((result for result in finished if result["teacher"]), None)
    if taught is None:
        return
    metric, teacher = Declared.of_result(taught).monitored, taught["teacher"]
    value = teacher.get(f"val/{metric.name}")
    if value is None:
        return
    alone = [r["metrics"].get(f"best/val_{metric.name}") for r in finished if r["role"] == ALONE]
    said = teacher.get("useless") or behind(metric, value, [figure for figure in alone if figure is not None])
    if said:
        log.warning("WARNING: the teacher %s is %s", teacher["name"], said)
