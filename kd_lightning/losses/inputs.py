"""What every loss does with its inputs first: full precision, a detached teacher, equal shapes, a sane temperature."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.joints import Weight
from kd_lightning.outputs import ModelOutput
from kd_lightning.schedules.values import as_schedule

MASKED = -1e4
"""What a teacher's logit of -inf becomes: as improbable at every temperature, and 0 * MASKED is 0."""


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if it is float64 (gradient checks and reference values need that)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def as_reference(tensor: Tensor) -> Tensor:
    """The teacher's side of a loss: in full precision, without gradient, usable in a backward pass."""
    if tensor.is_inference():  # a teacher under inference_mode: autograd refuses to save such tensors for backward
        tensor = tensor.clone()
    return full_precision(tensor.detach())


EPSILON = 1e-7  # added to the standard deviation, as the authors of logit standardisation do


def standardised(logits: Tensor) -> Tensor:
    """Each sample's logits minus their mean, over their (unbiased) standard deviation; zeros where that is zero.

    Logit standardisation (Sun et al. 2024, arXiv:2403.01427): what is left is the logits' shape.
    """
    variance = logits.var(dim=1, keepdim=True)
    # The root has no gradient at 0: a sample with equal logits is divided by 1 instead, its zeros stay zeros.
    deviation = torch.where(variance > 0, variance, 1.0).sqrt()
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + EPSILON)


def exactly(tensor: Tensor) -> torch.autocast:
    """A context in which products of full-precision tensors stay in full precision, whatever autocast is on."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def paired_logits(student: ModelOutput, teacher: ModelOutput, standardise: bool = False) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits, both (N, C) or (N, C, ...), in full precision, the teacher's detached.

    Args:
        student, teacher: outputs for the same batch.
        standardise: each sample's logits :func:`standardised`.

    Raises:
        UserError: the shapes differ, most often because the two models know different numbers of classes.
    """
    student_logits, teacher_logits = student.logits, teacher.logits
    if student_logits.shape != teacher_logits.shape:
        raise UserError(
            f"the student's logits have shape {tuple(student_logits.shape)}, the teacher's "
            f"{tuple(teacher_logits.shape)}: give both models the same num_classes"
        )
    student_logits, teacher_logits = full_precision(student_logits), as_reference(teacher_logits)
    return (
        (standardised(student_logits), standardised(teacher_logits))
        if standardise
        else (student_logits, teacher_logits)
    )


def require_rows(logits: Tensor, loss: str) -> None:
    """Raise a UserError where logits are not (N, C): the loss would take positions for classes or samples."""
    if logits.ndim != 2:
        raise UserError(
            f"{loss} compares answers (N, C), here they are {tuple(logits.shape)}, one for each position: choose a method "
            "that takes positions one by one, as method=kd"
        )


def require_several_classes(logits: Tensor, least: int, loss: str) -> None:
    """Raise a UserError where logits (N, C, ...) have so few classes that the loss has no gradient."""
    classes = logits.shape[1] if logits.ndim > 1 else 1
    if classes < least:
        raise UserError(
            f"{loss} teaches nothing with {classes} class{'es' * (classes != 1)}: what it compares is then the same for "
            f"every answer; choose a method that compares probabilities, as method=kd"
        )


def require_no_masked_classes(teacher: ModelOutput, loss: str) -> None:
    """Raise a UserError where the teacher masks classes (logits of -inf), which only probabilities can express."""
    if teacher.logits.is_floating_point() and float(teacher.logits.min()) <= MASKED:
        raise UserError(
            f"{loss} compares logits, and the teacher masks classes (logits of -inf): choose a method that compares "
            "probabilities, as method=kd"
        )


MAPS_TO_TAP = "tap convolutional layers, or a transformer's tokens as a map, LAYER:map (kd-layers shows the layers)"
"""What to do where a loss needs maps, for messages."""


def paired_features(student: ModelOutput, teacher: ModelOutput, tap: str) -> tuple[Tensor, Tensor]:
    """Student's and teacher's activations of one tap, in full precision, the teacher's detached.

    Raises:
        UserError: one of the models has no such tap.
    """
    for role, output in (("student", student), ("teacher", teacher)):
        if tap not in output.features:
            raise UserError(
                f"a loss needs the {role}'s tap {tap!r}, there is {sorted(output.features) or 'none'}: "
                f"set method.taps.{role}.{tap} to the name of a layer"
            )
    return full_precision(student.features[tap]), as_reference(teacher.features[tap])


def paired_maps(student: ModelOutput, teacher: ModelOutput, tap: str, loss: str = "this loss") -> tuple[Tensor, Tensor]:
    """As :func:`paired_features`, of layers that both give maps (N, C, H, W); ``loss`` is what a message calls it.

    Raises:
        UserError: one of the models has no such tap, or gives no maps there.
    """
    guided, hint = paired_features(student, teacher, tap)
    if guided.ndim != 4 or hint.ndim != 4:
        raise UserError(
            f"tap {tap!r}: {loss} needs maps (N, C, H, W), got {tuple(guided.shape)} from the student and "
            f"{tuple(hint.shape)} from the teacher: {MAPS_TO_TAP}"
        )
    return guided, hint


def checked_temperature(temperature: Weight, key: str = "method.temperature") -> float:
    """The temperature as a float; raises a UserError that names ``key`` unless it is finite and > 0.

    A schedule (or another callable of the clock) is passed through: the method that holds the term replaces the
    attribute that keeps it by its value before every step.
    """
    schedule = as_schedule(temperature)
    if schedule is not None:
        if not schedule.highest > 0 or (schedule.known and not schedule.lowest > 0):
            raise UserError(f"{key}: {schedule!r} reaches 0, a temperature must stay > 0: give it a start above 0")
        return cast(float, schedule)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise UserError(f"{key} must be a number > 0, got {temperature!r}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"{key} must be a finite number > 0, got {temperature}")
    return float(temperature)
