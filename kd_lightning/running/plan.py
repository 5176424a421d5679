"""``dry_run=true``: what would run, what is there already, and about how long the rest would take. Nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_lightning.config.build import build_datamodule, build_member
from kd_lightning.config.processes import processes_of
from kd_lightning.running.accelerator import require_accelerator, training_device
from kd_lightning.running.auto_taps import with_taps
from kd_lightning.running.continuation import cannot_continue
from kd_lightning.running.dry_pass import (
    CLOCK,
    try_students,
    untouched_randomness,
)
from kd_lightning.running.grouping import grouped
from kd_lightning.running.present_state import finished_result, refuse_other_run
from kd_lightning.running.shared import teacher_layers
from kd_lightning.running.trial_batch import moved, repeated
from kd_lightning.runs.spec import RunSpec
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.teachers.suits import reads_logits

TIMED = 3
"""Steps that are timed, after one that is not."""


class Training(NamedTuple):
    """One training that is to be done: of a run, or of a teacher."""

    name: str
    steps: int
    seconds_per_step: float

    @property
    def seconds(self) -> float:
        return self.steps * self.seconds_per_step


def say_plan(specs: Sequence[RunSpec], fuse: bool) -> None:
    """Print the groups, their runs, and an estimate of the steps' time on this machine.

    Raises:
        UserError: for what the dry pass finds.
    """
    todo = [spec for spec in specs if finished_result(spec) is None]
    for spec in todo:
        refuse_other_run(spec)
    print(f"{len(specs)} runs, {len(specs) - len(todo)} of them finished already")
    total = 0.0
    for number, group in enumerate(grouped(todo, fuse), 1):
        trainings = _trainings(group)
        seconds = sum(training.seconds for training in trainings)
        total += seconds
        together = "in lockstep" if len(group) > 1 else "by itself"
        print(f"group {number}: {len(group)} run{'s' * (len(group) > 1)} {together}, about {duration(seconds)}")
        for training in trainings:
            each = f"{training.steps} steps of {1000 * training.seconds_per_step:.1f} ms"
            print(f"  {training.name}: {each}, about {duration(training.seconds)}")
    print(
        f"about {duration(total)} of training steps, without loading, validation and the teacher's answers; nothing was run"
    )


def _trainings(group: Sequence[RunSpec]) -> list[Training]:
    config = group[0].config
    require_accelerator(config)
    datamodule = build_datamodule(config)
    group = with_taps(group, datamodule)
    to_train: list[RunSpec] = []  # teachers that are not stored

    def never(spec: RunSpec) -> dict[str, Any]:
        raise AssertionError(f"{spec.name}: nothing is trained in a plan")

    with untouched_randomness():
        teacher, _ = obtain_teacher(
            config,
            datamodule,
            teacher_layers(group),
            never,
            attempt=to_train.append,
            needs_logits=reads_logits([spec.config["method"] for spec in group]),
            trial=True,
        )
        for problem in (cannot_continue(group) | try_students(group, datamodule, teacher)).values():
            raise problem
        named = [(f"teacher {spec.name}", spec) for spec in to_train] + [(spec.name, spec) for spec in group]
        return [
            Training(name, _steps(spec.config["trainer"], datamodule), _seconds(spec, datamodule))
            for name, spec in named
        ]


def _steps(trainer: Any, datamodule: Any) -> int:
    """Optimizer steps of a run, if nothing ends it early."""
    if trainer.get("fast_dev_run"):
        return int(trainer["fast_dev_run"])
    batches = math.ceil(datamodule.steps_per_epoch / processes_of(trainer))
    limit = trainer.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / int(trainer.get("accumulate_grad_batches") or 1)) * int(trainer.get("max_epochs") or 1)
    most = trainer.get("max_steps")
    return min(steps, most) if most is not None and most >= 0 else steps


def _seconds(spec: RunSpec, datamodule: Any) -> float:
    """Seconds of one training step of the student on a batch of the real size, against the labels alone."""
    config = {**spec.config, "compile": False}
    config["method"] = {"_target_": "kd_lightning.method.Method", "terms": {}, "weights": {"task": 1.0}}
    device = training_device(config)
    example = datamodule.example_batch()
    batch = moved(repeated(example, int(config["data"].get("batch_size") or example.size)), device)
    member = build_member(config, datamodule, example, None, spec.name).to(device).train()
    member.configure(RunLength(total_steps=100, steps_per_epoch=10), device=device)
    began = 0.0
    with torch.enable_grad():
        for step in range(TIMED + 1):
            if step == 1:
                began = time.perf_counter()
            loss, *_ = member.training_step(batch, None, stepping=True, backward=Tensor.backward, clock=CLOCK)
            float(loss)  # waits for the device
    return (time.perf_counter() - began) / TIMED


def duration(seconds: float) -> str:
    """ "45 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
