"""What stands in for the result of a run that has none of its own: it failed from outside, or never got to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kd_lightning.config.build import build_task
from kd_lightning.errors import DirectoryTaken, UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.running.present_state import ended_result, other_run_in
from kd_lightning.runs.result_content import which_run
from kd_lightning.runs.result_file import Result, write_where_possible
from kd_lightning.runs.spec import RunSpec


def without_result(spec: RunSpec, status: str, error: str | None = None) -> Result:
    """What is said of a run that has no result of its own."""
    return {
        "status": status,
        **which_run(spec),
        **declared(spec),
        "metrics": {},
        "teacher": None,
        "baseline": None,
        "student": None,
        "error": error,
        "config": spec.config,
    }


def failed_result(spec: RunSpec, error: Exception) -> Result:
    """The result, written as well, of a run that could not be trained for a reason outside of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    result = without_result(spec, "failed", text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")
    write_where_possible(spec.result_path, result)
    return result


def tell_failed(specs: Sequence[RunSpec], error: Exception) -> None:
    """Write of each run that is not finished why it was not computed; a directory of another run is left alone."""
    for spec in specs:
        if not isinstance(error, DirectoryTaken) and ended_result(spec) is None and other_run_in(spec) is None:
            failed_result(spec, error)


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
