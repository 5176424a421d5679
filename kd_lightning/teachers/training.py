"""Train a teacher once: it is named by the fingerprint of what made it, stored under that name and found there again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kd_lightning.config.build import build_datamodule
from kd_lightning.config.fingerprint import identify, teacher_fingerprint
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.joints import DataModule
from kd_lightning.runs.result_file import read_result
from kd_lightning.runs.spec import TEACHER, RunSpec
from kd_lightning.teachers.kind import TeacherContext, nothing, sizes_at
from kd_lightning.teachers.recipe import own_data, own_run
from kd_lightning.teachers.stored import stored_teacher, tell_other_code

log = logging.getLogger(__name__)


def trained_once(context: TeacherContext) -> tuple[Mapping[str, Any], Path]:
    """The result and directory of the teacher's own run; trains it unless the store has it.

    Processes that want the same teacher at the same time take turns at a lock; the operating system frees the lock of
    a process that was killed, and its successor continues from the last checkpoint.

    Raises:
        UserError: its training failed.
        RunInterrupted: a signal asked to stop.
    """
    known = context.found.get(context.where)
    if known is not None:
        result = read_result(known / "result.json")
        if result is not None:
            return result, known
    spec = teacher_spec(context)
    stored = stored_teacher(spec, context.called)
    if stored is not None:
        return stored
    context.attempt(spec)
    lock = FileLock(f"{spec.run_dir}.lock")
    try:
        spec.run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        log.info("teacher %s is being trained by another process: waiting for it", spec.name)
        lock.acquire()
    except OSError as error:
        where, reason = spec.run_dir.parent, error.strerror or error
        raise UserError(f"paths.teacher_dir={where}: cannot be written ({reason}); choose another directory") from error
    try:
        stored = stored_teacher(spec, context.called)
        if stored is not None:
            return stored
        tell_other_code(spec)
        log.info("training the teacher %s in %s", context.called, spec.run_dir)
        trained = context.train(spec)
    finally:
        lock.release()
    if trained["status"] == "interrupted":
        raise RunInterrupted("stopped while the teacher was trained")
    if trained["status"] != "finished":
        raise UserError(f"teacher {context.called}: its training {trained['status']}: {trained['error']}")
    return trained, spec.run_dir


def announce_training(context: TeacherContext) -> None:
    """In a trial: tell ``context.attempt`` of the training that a real start would begin with."""
    if context.attempt is not nothing:
        spec = teacher_spec(context)
        if stored_teacher(spec, context.called) is None:
            context.attempt(spec)


def teacher_spec(context: TeacherContext) -> RunSpec:
    """The teacher's training as a run of its own: its model as a student, without a teacher or with one of its own."""
    config = context.config
    teacher, data = config["teacher"], data_of_training(context)
    own = own_run(config, sizes_at(context.task, data, teacher.get("image_size")), context.where)
    identity = identify(own, teacher_fingerprint(own, data.data_fingerprint() + data.view_fingerprint()))
    name = f"{context.name}-{identity.fingerprint[:12]}".replace("/", "-")
    return RunSpec(
        name,
        Path(config["paths"]["teacher_dir"]) / name,
        own,
        identity.fingerprint,
        role=TEACHER,
        setting=identity.setting,
        source=identity.source,
        configuration=identity.configuration,
    )


def data_of_training(context: TeacherContext) -> DataModule:
    """The data on which the teacher is trained: the student's, or others where its ``data`` says so; what is wrong with
    these is its ``data``'s."""
    config, where = context.config, context.where
    node = own_data(config)
    if node == config["data"]:
        return context.datamodule
    try:
        made: DataModule = build_datamodule({**config, "data": node})
    except UserError as error:
        raise UserError(
            f"{where}.data: {error}; the teacher changes these arguments of the data: choose one that suits them "
            f"(teacher=small_cnn changes none)"
        ) from error
    return made
