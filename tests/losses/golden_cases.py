"""Values that the reference implementations of the literature compute, and the comparison with ours.

``tests/golden/README.md`` says where they come from. All in float64: loss to 1e-9, gradients to 1e-7 of the largest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kd_lightning.outputs import ModelOutput

FOLDER = Path(__file__).resolve().parent.parent / "golden"


@cache
def _manifest() -> dict:
    return json.loads((FOLDER / "cases.json").read_text())


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{file}.npz") as stored:
        return dict(stored)


def cases_of(file: str, starting: str = "") -> list[str]:
    """Names of a file's cases, those whose name begins so."""
    return [name for name in _manifest()[file] if name.startswith(starting)]


def all_cases() -> list[tuple[str, str]]:
    """(file, case) of every stored case."""
    return [(file, case) for file, cases in _manifest().items() for case in cases]


def entry(file: str, case: str) -> dict:
    """What the manifest says of a case."""
    return _manifest()[file][case]


def hyperparameters(file: str, case: str) -> dict:
    """Hyperparameters of a case by the reference's names."""
    return _manifest()[file][case]["hyperparameters"]


def array(file: str, name: str) -> Tensor:
    """A stored array, for example ``in/s``."""
    return torch.from_numpy(_arrays(file)[name].copy())


def gradients(file: str, case: str, kind: str = "grad") -> dict[str, Tensor]:
    """Stored gradients of a case: ``grad`` by student input, ``pgrad`` by adapter parameter."""
    prefix = f"{case}/{kind}."
    return {key.removeprefix(prefix): array(file, key) for key in _arrays(file) if key.startswith(prefix)}


def assert_equals_reference(
    file: str,
    case: str,
    loss: Callable[..., Tensor],
    gradient: bool = True,
    rtol: float = 1e-9,
    atol: float = 1e-12,
    parameters: dict[str, nn.Parameter] | None = None,
) -> None:
    """``loss(*student_inputs, *other_inputs)`` must give the stored loss and the stored gradients.

    ``parameters``: what the loss learns itself, by the reference's names; their gradients are compared too.
    """
    entry = _manifest()[file][case]
    given = {name: array(file, f"in/{name}") for name in entry["student_inputs"] + entry["other_inputs"]}
    for name in entry["student_inputs"]:
        given[name].requires_grad_()
    value = loss(*given.values())
    torch.testing.assert_close(value.detach(), array(file, f"{case}/loss"), rtol=rtol, atol=atol)
    if gradient:
        value.backward()
        expected = gradients(file, case)
        assert expected, f"{file}/{case} stores no gradient"
        for name, reference in expected.items():
            gradient = given[name].grad
            assert_gradient(torch.zeros_like(reference) if gradient is None else gradient, reference, max(1e-7, rtol))
        for name, parameter in (parameters or {}).items():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert_gradient(parameter.grad, array(file, f"{case}/pgrad.{name}"), rtol=max(1e-7, rtol))


def assert_gradient(gradient: Tensor, reference: Tensor, rtol: float = 1e-7) -> None:
    """Equal to ``rtol`` of the largest entry."""
    tolerance = rtol * reference.abs().max().item() + 1e-12
    torch.testing.assert_close(gradient, reference, rtol=0, atol=tolerance)


def on_logits(term: nn.Module) -> Callable[..., Tensor]:
    """The term as a function of (student logits, teacher logits[, target])."""

    def loss(student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        unlabelled = torch.full(student.shape[:1], -1)
        return term(ModelOutput(student), ModelOutput(teacher), unlabelled if target is None else target)

    return loss


def on_features(term: nn.Module, *taps: str) -> Callable[..., Tensor]:
    """The term as a function of (student features…, teacher features…), one of each per tap."""

    def loss(*features: Tensor) -> Tensor:
        student = dict(zip(taps, features[: len(taps)], strict=True))
        teacher = dict(zip(taps, features[len(taps) :], strict=True))
        logits = torch.zeros(features[0].shape[0], 2)
        return term(ModelOutput(logits, student), ModelOutput(logits, teacher), torch.full((logits.shape[0],), -1))

    return loss


def extreme_pairs(classes: int = 10) -> list[tuple[Tensor, Tensor]]:
    """Float32 logits with gaps of 1e4: agreeing, contradicting, one-sided, and all equal."""
    sharp = torch.full((4, classes), -5e3)
    sharp[:, 0] = 5e3
    opposite = sharp.roll(1, dims=1)
    flat = torch.zeros(4, classes)
    return [(sharp, sharp), (sharp, opposite), (sharp, flat), (flat, sharp), (flat, flat), (sharp * 2, -sharp)]


def assert_finite_at_extremes(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Loss and gradient are finite for each pair of extreme logits."""
    for student, teacher in extreme_pairs():
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher)
        value.backward()
        assert torch.isfinite(value), (student[0, :3], teacher[0, :3], value)
        assert torch.isfinite(leaf.grad).all(), (student[0, :3], teacher[0, :3], leaf.grad)
