"""A distillation method: named loss terms with explicit weights, and the layers that they look at."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature
from kd_lightning.outputs import ModelOutput

TASK = "task"
ROLES = ("student", "teacher")


class Method(nn.Module):
    """The weighted sum ``total = weights.task * task loss + sum_k weights.<k> * term_k``.

    Weights are absolute: none is derived from another, none is normalised. A term whose weight is 0 is not computed.
    What a term learns itself (an adapter) is found by ``parameters()``, trained with the student, and left behind on
    export.

    Args:
        terms: name -> loss term, an ``nn.Module`` called as ``term(student, teacher, target)`` that returns a scalar.
        weights: name -> weight >= 0, for ``task`` and for each term; at least one must be > 0.
        temperature: softening T > 0 that the terms share (terms get it by interpolation), None where there is none.
        taps: ``{"student": {tap: layer}, "teacher": {tap: layer}}``: features that the terms need, see
            :mod:`kd_lightning.taps`.

    Raises:
        UserError: names or values of weights, temperature or taps that cannot be meant, naming the config key.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module] | None,
        weights: Mapping[str, float],
        temperature: float | None = None,
        taps: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__()
        terms = dict(terms or {})
        self.terms = nn.ModuleDict()
        for name, term in terms.items():
            if name == TASK or not str(name).isidentifier():
                raise UserError(f"method.terms.{name}: a term's name must be an identifier other than {TASK!r}")
            if not isinstance(term, nn.Module):
                raise UserError(f"method.terms.{name} must be an nn.Module (set its _target_), got {term!r}")
            self.terms[name] = term
        self.weights = _checked_weights(weights, [TASK, *terms])
        self.temperature = None if temperature is None else checked_temperature(temperature)
        self.taps = _checked_taps(taps)

    @property
    def active(self) -> list[str]:
        """Names of the terms that are computed: those with a weight above 0."""
        return [name for name in self.terms if self.weights[name] > 0]

    @property
    def needs_teacher(self) -> bool:
        """False if no term has a weight above 0: then the teacher need not run."""
        return bool(self.active)

    def prepare(self, student: ModelOutput, teacher: ModelOutput | None) -> None:
        """Let the active terms build what depends on feature shapes; call once, before the optimizer is made.

        Args:
            student: the student's output on any batch, with its taps' features; only shapes matter.
            teacher: the teacher's output on the same batch; None if ``needs_teacher`` is False.
        """
        for name in self.active:
            prepare = getattr(self.terms[name], "prepare", None)
            if prepare is not None:
                prepare(student, teacher)

    def forward(
        self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor, task_loss: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss of one batch, and each part of it.

        Args:
            student: output with logits (N, C) and the taps' features.
            teacher: output for the same batch; None only if ``needs_teacher`` is False.
            target: ground truth, shape (N, ...), handed to the terms.
            task_loss: scalar, the loss against the ground truth.

        Returns:
            The scalar to differentiate, and the detached, unweighted scalars by name (``task`` and each active term).
        """
        parts = {TASK: task_loss.detach()}
        # A weight of 0 leaves the loss out instead of multiplying it: 0 * nan would be nan.
        total = self.weights[TASK] * task_loss if self.weights[TASK] > 0 else None
        for name in self.active:
            value = self.terms[name](student, teacher, target)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise UserError(f"method.terms.{name} must return a scalar tensor, got {_described(value)}")
            value = value.reshape(())
            parts[name] = value.detach()
            total = self.weights[name] * value if total is None else total + self.weights[name] * value
        return total, parts

    def extra_repr(self) -> str:
        return f"weights={self.weights}, temperature={self.temperature}"


def _checked_weights(weights: Mapping[str, Any], names: list[str]) -> dict[str, float]:
    weights = dict(weights or {})
    for name in weights:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            meant = f"did you mean method.weights.{close[0]}?" if close else f"known are {', '.join(names)}"
            raise UserError(f"method.weights.{name}: there is no such term; {meant}")
    for name in names:
        if name not in weights:
            raise UserError(f"method.weights.{name} is missing: each term needs a weight (0 switches it off)")
        value = weights[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"method.weights.{name} must be a number >= 0, got {value!r}")
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"method.weights.{name} must be a finite number >= 0, got {value}")
    if not any(weights.values()):
        keys = ", ".join(f"method.weights.{name}" for name in names)
        raise UserError(f"all weights are 0, nothing would be learned: set one of {keys} above 0")
    return {name: float(weights[name]) for name in names}


def _checked_taps(taps: Mapping[str, Mapping[str, str]] | None) -> dict[str, dict[str, str]]:
    taps = dict(taps or {})
    for role in taps:
        if role not in ROLES:
            raise UserError(f"method.taps.{role}: taps belong to {' or '.join(ROLES)}")
    return {role: dict(taps.get(role) or {}) for role in ROLES}


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
