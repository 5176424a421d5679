"""Runs that would have nothing to learn from: no label in their data, and no term that needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kd_lightning.config.build import build_task
from kd_lightning.data.items import NO_TARGET_NOTE
from kd_lightning.errors import UserError
from kd_lightning.joints import DataModule
from kd_lightning.runs.spec import ALONE, RunSpec


def without_labels(specs: Sequence[RunSpec], data: DataModule) -> dict[Path, UserError]:
    """What to tell of the runs that learn from labels only, by run directory; none where some sample has a label, and
    none of a task that needs none."""
    task = build_task(specs[0].config)
    alone = [spec for spec in specs if _learns_from_task_only(spec)]
    if not task.learns_alone:
        return {spec.run_dir: UserError(_no_loss(spec, task.name)) for spec in alone}
    if data.labelled_in("train") or not task.needs_labels:
        return {}
    return {spec.run_dir: UserError(_told(spec, data)) for spec in alone}


def _learns_from_task_only(spec: RunSpec) -> bool:
    weights = spec.config["method"].get("weights") or {}
    return not any(weight for term, weight in weights.items() if term != "task")


def _no_loss(spec: RunSpec, task: str) -> str:
    told = f"task: {task} has no loss of its own, {spec.name} has nothing to learn from: "
    return told + (
        "baseline=false leaves the student alone out; a method learns from a teacher (method=embedding) or from the student "
        "itself (method=dino)"
    )


def _told(spec: RunSpec, data: DataModule) -> str:
    why = next((f"{note}: " for note in data.describe().get("notes", ()) if note.startswith(NO_TARGET_NOTE)), "")
    told = f"data: {why}no training sample has a label, {spec.name} has nothing to learn from: "
    if spec.role == ALONE and not why and not spec.config.get("baseline"):
        return told + "baseline=false leaves the student alone out"
    return told + "give it labels (for a teacher's training: teacher.data), or a method that learns from a teacher"
