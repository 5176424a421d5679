"""What the runs of several jobs share is made once, before them: data, teacher, its stored answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kd_lightning.config.build import build_datamodule
from kd_lightning.joints import Teacher
from kd_lightning.running.auto_taps import with_taps
from kd_lightning.running.dry_pass import try_students
from kd_lightning.running.grouping import grouped
from kd_lightning.running.run_group import train_alone
from kd_lightning.running.shared import teacher_layers, with_stored_answers
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.teachers.suits import reads_logits

log = logging.getLogger(__name__)


def prepare(specs: Sequence[RunSpec]) -> None:
    """Fetch the data, try the students, train the teacher, store its answers: all that is not there yet.

    Whether answers are stored is decided as each run would decide it alone, so that its figures do not depend on where
    it is computed.

    Raises:
        UserError: something cannot be had, or a student cannot work.
        RunInterrupted: a signal asked to stop; the teacher's state is kept.
    """
    for group in grouped(specs, fuse=True):
        _prepare(group)


def _prepare(specs: Sequence[RunSpec]) -> None:
    config = specs[0].config
    datamodule = build_datamodule(config)
    specs = with_taps(specs, datamodule)

    def obtain(trial: bool = False) -> tuple[Teacher | None, dict[str, Any] | None]:
        return obtain_teacher(
            config,
            datamodule,
            teacher_layers(specs),
            train_alone,
            attempt=None if trial else attempt,
            needs_logits=reads_logits([spec.config["method"] for spec in specs]),
            trial=trial,
        )

    def attempt(spec: RunSpec) -> None:
        """Before hours go into a teacher: can it be trained, and can anybody learn from it?"""
        own = try_students([spec], datamodule) if spec.config["teacher"] is None else {}
        problems = {**own, **try_students(specs, datamodule, obtain(trial=True)[0])}
        served = [spec for spec in specs if spec.role != ALONE] or list(specs)
        for problem in own.values():
            raise problem
        if all(spec.run_dir in problems for spec in served):
            raise problems[served[0].run_dir]

    teacher, _ = obtain()
    log.info("data: %s", datamodule.summary())
    with_stored_answers(specs, teacher, datamodule)
    datamodule.teardown("fit")
