"""Try everything once before anything is trained: what can be known in a second is not told after an hour.

Each student of a group goes forward and backward on one small batch, with the teacher's answers (those of its network
with fresh weights, where it is still to be trained), through the task's loss, every term of its method, the optimizer's
construction and the task's evaluator. What fails is told in one line with the key it belongs to. Nothing of it is kept,
and every random generator stands afterwards where it stood.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.calling import inputs_hint
from kd_lightning.config.build import build_member
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.data.samples import labelled
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock, Teacher
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput, as_model_output, looks_like_probabilities, unused_heads
from kd_lightning.rng import RngStream
from kd_lightning.running.accelerator import training_device
from kd_lightning.running.continuation import refuse_length_in_method, watched
from kd_lightning.running.shared import require_storable
from kd_lightning.running.trial_batch import described, moved, repeated
from kd_lightning.runs.spec import TEACHER, RunSpec
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.teachers.class_names import start_in_another_order
from kd_lightning.teachers.example import example_answer
from kd_lightning.trainer_facts import answers_evaluation, teacher_module

log = logging.getLogger(__name__)

SAMPLES = 16
"""Samples in the batch: the data's example over and over, at most so many and no more than a training batch has."""
CLOCK = Clock(epoch=5, step=50, total_steps=100, steps_per_epoch=10)  # half way: what is raised slowly counts by then
NOT_TRIED = ("seed", "name", "paths", "logger", "pictures")
"""Keys in which runs may differ without a difference to what is tried here."""


def try_students(specs: Sequence[RunSpec], datamodule: Any, teacher: Teacher | None = None) -> dict[Path, UserError]:
    """Try each run's student.

    Args:
        specs: runs of one group.
        datamodule: their data, ready.
        teacher: the live teacher, or one with fresh weights that stands for what is to be trained; None: there is none.

    Returns:
        What is wrong, by run directory.
    """
    with untouched_randomness():
        example = datamodule.example_batch()
        many = repeated(example, min(SAMPLES, int(specs[0].config["data"].get("batch_size") or SAMPLES)))
        try:
            answers = _teacher_answers(teacher, example, many)
            if teacher is not None and answers.many is not None:
                require_storable(specs, teacher, answers.many)
        except UserError as error:
            return dict.fromkeys((spec.run_dir for spec in specs), error)
        tried: dict[str, UserError | None] = {}
        problems: dict[Path, UserError] = {}
        for spec in specs:
            alike = json.dumps({k: v for k, v in spec.config.items() if k not in NOT_TRIED}, default=str)
            if alike not in tried:
                tried[alike] = _problem(spec, datamodule, example, many, answers)
            problem = tried[alike]
            if problem is not None:
                problems[spec.run_dir] = problem
        return problems


@contextlib.contextmanager
def untouched_randomness() -> Iterator[None]:
    """The generators of Python, NumPy and torch stand afterwards where they stood."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with RngStream(0):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class TeacherAnswers(NamedTuple):
    """What stands for the teacher: its answers for the example and for the batch, and its network; None without one.

    ``compared``: whether evaluation compares a student's answers with the teacher's.
    """

    example: ModelOutput | None = None
    many: ModelOutput | None = None
    module: nn.Module | None = None
    compared: bool = False


def _teacher_answers(teacher: Teacher | None, example: Batch, many: Batch) -> TeacherAnswers:
    if teacher is None:
        return TeacherAnswers()
    with _told("teacher: its forward pass", example):
        return TeacherAnswers(
            example_answer(teacher, example), teacher(many), teacher_module(teacher), answers_evaluation(teacher)
        )


def _problem(spec: RunSpec, datamodule: Any, example: Batch, many: Batch, teacher: TeacherAnswers) -> UserError | None:
    """What is wrong with one student, or None."""
    config = {**spec.config, "compile": False}  # compiling takes longer than all the rest, and changes no shape
    device = training_device(config)
    student = "teacher.model" if spec.role == TEACHER else "student"
    start = config.get("init_from")
    if told := start and start_in_another_order(start, datamodule.class_names):
        tell_once(f"WARNING: {told}", logging.WARNING)
    try:
        with _told(f"{student}: its forward pass", example, student):
            member = build_member(config, datamodule, example, teacher.example, spec.name, teacher.module)
        batch, answer = moved(many, device), moved(teacher.many, device)
        member.to(device).train()
        with _told(f"{student}: a training step", batch, student), torch.enable_grad():
            clock = watched(CLOCK)
            _train_step(member, batch, answer, device, student, clock)
            refuse_length_in_method(spec, clock)
        with _told("task: its evaluator", batch, student):
            _evaluate(member, batch, answer if teacher.compared else None)
    except UserError as error:
        return error
    return None


def _train_step(
    member: Member, batch: Batch, answer: ModelOutput | None, device: torch.device, student: str, clock: Clock
) -> None:
    optimizer = member.configure(RunLength(total_steps=100, steps_per_epoch=10), device=device)
    batch = batch._replace(also=batch.also or (batch,))
    views = [answer for _ in batch.also] if member.method.wants_views else None
    outputs: list[Any] = []
    hook = member.student.register_forward_hook(lambda _, __, output: outputs.append(output))
    total, values = _loss(member, batch, answer, clock, views)
    hook.remove()
    if not total.requires_grad:
        raise UserError(f"{student}: the loss has no gradient: no trained parameter has a part in it")
    heads = [name for output in outputs for name in unused_heads(output)]
    if heads:
        names = ", ".join(dict.fromkeys(heads))
        log.warning(
            "WARNING: %s: its output also holds %s, which no loss looks at: auxiliary heads get no gradient",
            student,
            names,
        )
    if outputs and all(looks_like_probabilities(as_model_output(output).logits) for output in outputs):
        log.warning(
            "WARNING: %s: its outputs look like probabilities (each sample's are >= 0 and sum to 1), and losses take them for "
            "logits: leave out the softmax at its end", student,
        )  # fmt: skip
    parameters = member.trained_parameters()
    dead = without_gradient(values, parameters)
    if dead and answer is not None:  # is it the term, or these two samples and what the teacher says of them?
        other = replace(answer, logits=answer.logits + _spread(answer.logits))
        values = _loss(member, _noisy(batch), other, clock, [other for _ in batch.also] if views is not None else None)[
            1
        ]
        dead = [name for name in without_gradient(values, parameters) if name in dead]
    for name in dead:
        log.warning("WARNING: method.terms.%s gives the student no gradient%s", name, _why(answer))
    total.backward()
    optimizer.zero_grad()
    with torch.no_grad():
        member.method.after_step(member.student, CLOCK)


def _spread(logits: Tensor) -> Tensor:
    """Noise of 1 for every second sample and of 10 for the others: terms may leave out what the teacher is (un)sure of."""
    noise = torch.randn_like(logits)
    noise[::2] *= 10
    return noise


def _noisy(batch: Batch) -> Batch:
    """The same samples, each another: where inputs are numbers, noise of their own size is added."""
    values = batch.inputs
    if not (isinstance(values, Tensor) and values.is_floating_point()):
        return batch
    return batch._replace(inputs=values + values.std().clamp(min=1e-3) * torch.randn_like(values))


def _loss(
    member: Member, batch: Batch, answer: ModelOutput | None, clock: Clock, views: list[ModelOutput | None] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole loss, and the value of each term."""
    values: dict[str, Tensor] = {}
    hooks = [
        term.register_forward_hook(lambda _, __, value, name=name: values.__setitem__(name, value))
        for name, term in member.method.terms.items()
    ]
    total, _ = member.loss(batch, answer, clock, views)
    for hook in hooks:
        hook.remove()
    return total, values


def without_gradient(values: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> list[str]:
    """Names of the terms whose values do not change, to first order, whatever parameter moves."""
    dead = []
    for name, value in values.items():
        known = value.requires_grad and torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        if not known or not any(gradient is not None and bool(gradient.any()) for gradient in known):
            dead.append(name)
    return dead


def _why(answer: ModelOutput | None) -> str:
    if answer is not None and answer.logits.dim() > 1 and answer.logits.shape[1] == 1:
        return ": the softmax of one number is always 1; choose a method for such outputs (method=logits_mse) or method=none"
    return " on one batch: it may teach nothing"


def _evaluate(member: Member, batch: Batch, answer: ModelOutput | None) -> None:
    evaluator = member.task.evaluator()
    member.eval()
    with torch.no_grad():
        with member.autocast(batch.target.device):
            output = member.answer(batch.inputs)
        evaluator.update(output, answer, batch)
    metrics = evaluator.compute()
    unlabelled = batch.split == "train" and not labelled(batch.target, UNLABELLED).any()  # as hidden labels are
    if member.task.monitor not in metrics and not unlabelled:
        raise UserError(
            f"task: monitors {member.task.monitor!r}, its evaluator gives {', '.join(metrics) or 'nothing'}"
        )


@contextlib.contextmanager
def _told(what: str, batch: Batch, student: str = "student") -> Iterator[None]:
    """Make one line of whatever goes wrong: whose fault it is, if that can be told, on what, and the message."""
    try:
        yield
    except UserError as error:
        whose = _culprit(error.__traceback__, student)
        if whose is None or whose.partition(".")[0] in str(error).partition(":")[0]:
            raise
        raise UserError(f"{whose}: {error}") from error
    except Exception as error:
        whose = _culprit(error.__traceback__, student) or what
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{whose} fails on one batch (inputs {described(batch.inputs)}, target {described(batch.target)}): "
            f"{text[:300]}{inputs_hint(batch.inputs)} (HYDRA_FULL_ERROR=1 shows where)"
        ) from error


def _culprit(traceback: TracebackType | None, student: str) -> str | None:
    """The key of the part of a member in one of whose methods the error arose; the innermost one."""
    parts: dict[int, str] = {}
    found = None
    while traceback is not None:
        local = traceback.tb_frame.f_locals
        for value in list(local.values()):
            if isinstance(value, Member):
                parts |= {id(value.student): student, id(value.task): "task"}
                parts |= {id(term): f"method.terms.{name}" for name, term in value.method.terms.items()}
        found = parts.get(id(local.get("self")), found)
        traceback = traceback.tb_next
    return found
