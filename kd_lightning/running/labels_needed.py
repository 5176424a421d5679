"""Runs that would have nothing to learn from: no label in their data, and no term that needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kd_lightning.config.build import build_task
from kd_lightning.errors import UserError
from kd_lightning.joints import DataModule
from kd_lightning.runs.spec import ALONE, RunSpec


def without_labels(specs: Sequence[RunSpec], data: DataModule) -> dict[Path, UserError]:
    """What to tell of the runs that learn from labels only, by run directory; none where some sample has a label, and
    none of a task that needs none."""
    if data.labelled_in("train") or not getattr(build_task(specs[0].config), "needs_labels", True):
        return {}
    return {spec.run_dir: UserError(_told(spec)) for spec in specs if _learns_from_labels_only(spec)}


def _learns_from_labels_only(spec: RunSpec) -> bool:
    weights = spec.config["method"].get("weights") or {}
    return not any(weight for term, weight in weights.items() if term != "task")


def _told(spec: RunSpec) -> str:
    told = f"data: no training sample has a label, {spec.name} has nothing to learn from: "
    if spec.role == ALONE:
        return told + "baseline=false leaves the student alone out"
    return told + "give it labels (for a teacher's training: teacher.data), or a method that learns from a teacher"
