"""The teacher that a configuration names, ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.joints import DataModule, Teacher
from kd_lightning.teachers.kind import Attempt, TeacherContext, Train, build_kind


def obtain_teacher(
    config: Mapping[str, Any],
    datamodule: DataModule,
    layers: Iterable[str],
    train: Train,
    *,
    attempt: Attempt | None = None,
    begin: Callable[[], None] | None = None,
    needs_logits: bool = True,
    trial: bool = False,
    found: Mapping[str, Path] | None = None,
) -> tuple[Teacher | None, dict[str, Any] | None]:
    """The frozen teacher of a configuration, made by the kind that its ``teacher`` names.

    Args:
        config: of a run.
        datamodule: the run's data.
        layers: names of teacher layers whose features some method needs.
        train: trains a RunSpec to its end and returns its result.
        attempt: tries such a run before anything is written; see :class:`~kd_lightning.teachers.kind.TeacherContext`.
        begin: called before work that is no such run and takes long.
        needs_logits: whether some method reads the teacher's logits.
        trial: networks that are to be trained answer with the weights that they start from.
        found: run directories of teachers that were trained before, by key (``teacher``, ``teacher.members.a``).

    Returns:
        The teacher and what ``result.json`` says of it; two None where there is no teacher.

    Raises:
        UserError: it cannot be made: a file that cannot be used, a training that failed.
    """
    node = config["teacher"]
    if not node:
        return None, None
    context = TeacherContext(
        config,
        datamodule,
        frozenset(layers),
        train,
        needs_logits=needs_logits,
        trial=trial,
        found=dict(found or {}),
    )
    if attempt is not None:
        context = replace(context, attempt=attempt)
    if begin is not None:
        context = replace(context, begin=begin)
    teacher = build_kind(node).make(context)
    return (None, None) if teacher is None else (teacher, teacher.describe())


def trained_in(description: Mapping[str, Any] | None, where: str = "teacher") -> dict[str, Path]:
    """The run directories that a result's ``teacher`` names, by key: what ``found`` of :func:`obtain_teacher` takes."""
    if not description:
        return {}
    found = {where: Path(description["run_dir"])} if description.get("run_dir") else {}
    for name, member in (description.get("members") or {}).items():
        found |= trained_in(member, f"{where}.members.{name}")
    return {key: path for key, path in found.items() if path.is_dir()}
