"""What goes into ``result.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kd_lightning.joints import DataModule
from kd_lightning.member import Member
from kd_lightning.runs.latency import latency_ms, parameters_count, state_bytes
from kd_lightning.runs.provenance import commits, host, peak_memory_bytes, versions
from kd_lightning.runs.result_file import FORMAT
from kd_lightning.runs.run_recorder import RunRecorder
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)


def result_content(
    recorder: RunRecorder,
    member: Member | None,
    data: DataModule,
    teacher: Mapping[str, Any] | None,
    fused: int,
    started: datetime,
) -> dict[str, Any]:
    """A run's result.

    Args:
        recorder: of the run, which has ended.
        member: its student; None if it could not be built.
        data: the run's; gives its description, and a batch to time the student on.
        teacher: what is known of the teacher, beside how it did in this run's validation and test; None without one.
        fused: runs that trained side by side.
        started: when they did.
    """
    spec = recorder.spec
    declared = recorder.declared
    metrics = declared.students(recorder.test_metrics, "test/")
    if recorder.best is not None:
        metrics[f"best/val_{recorder.monitor}"] = recorder.best
        metrics |= {"best/epoch": recorder.best_epoch + 1, "best/step": recorder.best_step}  # counted from 1, as shown
    if recorder.best_on_test is not None:
        metrics[f"best_on_test/{recorder.monitor}"] = recorder.best_on_test
        metrics["best_on_test/epoch"] = recorder.best_on_test_epoch + 1
    student, finished = None, recorder.status == "finished"
    if finished and (said := guesses_on_test(recorder, data)) and recorder.warned("test", said):
        log.warning("WARNING: %s: %s", spec.name, said)
    if member is not None:
        student = {
            "parameters": parameters_count(member.student),
            "bytes": state_bytes(member.student),
            "latency_ms": latency_ms(member.student, data.example_batch().inputs) if finished else None,
        }
    if teacher is not None:
        teacher = {**teacher, **declared.teachers(recorder.test_metrics, "test/")}
        validated = declared.teachers(recorder.best_metrics, "")
        teacher |= {f"val/{name}": value for name, value in validated.items()}
        useless = recorder.task.useless(validated, data) if recorder.monitor in validated else None
        teacher |= {"useless": useless} if useless else {}
    return {
        "format": FORMAT,
        "status": recorder.status,
        **which_run(spec),
        "task": recorder.task.name,
        "monitor": {"metric": recorder.monitor, "mode": declared.monitored.mode},
        "declared": declared.as_plain(),
        "fitted": dict(recorder.task.fitted()),
        "metrics": metrics,
        "teacher": teacher,
        "baseline": None,
        "student": student,
        "data": data.describe(),
        "cost": {
            "seconds": recorder.seconds,
            "steps": recorder.step,
            "epochs": recorder.epoch,
            "fused": fused,
            "peak_memory_bytes": peak_memory_bytes(),
        },
        "config": spec.config,
        "error": recorder.error,
        "warnings": list(recorder.warnings.values()),
        "versions": versions(),
        "commit": commits(),
        "host": host(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def guesses_on_test(recorder: RunRecorder, data: DataModule) -> str | None:
    """What is said of a student that validation calls good and that only guesses on the test split; else None.

    Good: so much better that a quarter of the way from test to validation is no guessing either.
    """
    name, best = recorder.monitor, recorder.best
    test = recorder.test_metrics.get(name)
    if best is None or test is None:
        return None
    between = {**recorder.best_metrics, name: test + (best - test) / 4}
    if not recorder.task.useless({**between, name: test}, data) or recorder.task.useless(between, data):
        return None
    return (
        f"no better than guessing on the test split ({name} {test:.4g}), where validation has {best:.4g}: are the test samples' "
        "labels numbered, and their inputs made, as those of the training samples?"
    )


def spec_of_result(result: Mapping[str, Any], run_dir: Path) -> RunSpec:
    """The RunSpec that a ``result.json`` was made from."""
    return RunSpec(
        result["name"],
        run_dir,
        result["config"],
        result["fingerprint"],
        tuple(result["overrides"]),
        result["role"],
        setting=result.get("setting") or "",
        setting_name=result.get("setting_name") or "",
        source=result.get("source") or {},
        configuration=result.get("configuration") or "",
    )


def which_run(spec: RunSpec) -> dict[str, Any]:
    """The entries of every result, also of a run that failed: which run it is, and of which code and configuration."""
    return {
        "name": spec.name,
        "role": spec.role,
        "fingerprint": spec.fingerprint,
        "setting": spec.setting,
        "setting_name": spec.setting_name or spec.name,
        "source": dict(spec.source),
        "configuration": spec.configuration,
        "seed": spec.seed,
        "overrides": list(spec.overrides),
    }
