"""LAMB moves parameters as algorithm 2 of its paper says, evaluated here by another route in 64 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.optimizers.lamb import Lamb

STEPS = 6
CASES = {
    "plain": {},
    "no decay": {"weight_decay": 0.0},
    "no decay, adapted": {"weight_decay": 0.0, "always_adapt": True},
    "ratio at most 1": {"trust_clip": True, "weight_decay": 0.2},
    "averages as they are": {"bias_correction": False, "grad_averaging": False, "max_grad_norm": None},
    "short gradients": {"max_grad_norm": 0.3, "betas": (0.5, 0.7), "eps": 1e-3},
}


def given(seed: int = 0):
    numbers = np.random.default_rng(seed)
    starts = [3 * numbers.standard_normal((4, 3)), 0.1 * numbers.standard_normal(5), np.zeros((2, 2))]
    return starts, [[numbers.standard_normal(start.shape) for start in starts] for _ in range(STEPS)]


def follow(starts, gradients, lr=0.05, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, bias_correction=True,
           grad_averaging=True, max_grad_norm=1.0, trust_clip=False, always_adapt=False):  # fmt: skip
    """Each tensor after the steps; averages as the sums over all earlier gradients that they stand for."""
    if max_grad_norm is not None:
        norms = [np.sqrt(sum((g**2).sum() for g in step)) for step in gradients]
        gradients = [
            [g * min(1.0, max_grad_norm / norm) for g in step] for step, norm in zip(gradients, norms, strict=True)
        ]
    found = []
    for which, start in enumerate(starts):
        x = start.copy()
        for t in range(1, len(gradients) + 1):
            seen = [step[which] for step in gradients[:t]]
            ages = range(t - 1, -1, -1)
            m = sum(
                (1 - betas[0] if grad_averaging else 1) * betas[0] ** a * g for a, g in zip(ages, seen, strict=True)
            )
            v = sum((1 - betas[1]) * betas[1] ** a * g**2 for a, g in zip(ages, seen, strict=True))
            if bias_correction:
                m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
            u = m / (np.sqrt(v) + eps) + weight_decay * x
            ratio = 1.0
            if weight_decay or always_adapt:
                sizes = np.linalg.norm(x), np.linalg.norm(u)
                ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
                ratio = min(ratio, 1.0) if trust_clip else ratio
            x = x - lr * ratio * u
        found.append(x)
    return found


def moved(starts, gradients, dtype=torch.float64, **settings):
    parameters = [torch.nn.Parameter(torch.tensor(start, dtype=dtype)) for start in starts]
    optimizer = Lamb(parameters, lr=0.05, **settings)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.parametrize("case", CASES)
def test_tensors_are_where_the_papers_sums_put_them(case):
    starts, gradients = given()
    for got, expected in zip(
        moved(starts, gradients, **CASES[case]), follow(starts, gradients, **CASES[case]), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_a_first_step_by_hand():
    """x = (3, 4), g = (1, -1): Adam's direction is (1, -1), with decay 0.1 u = (1.3, -0.6); 5 / |u| times it, by lr 0.1."""
    (found,) = moved([np.array([3.0, 4.0])], [[np.array([1.0, -1.0])]], weight_decay=0.1, eps=1e-12, max_grad_norm=None)
    length = (1.3**2 + 0.6**2) ** 0.5
    np.testing.assert_allclose(found, [3 - 0.05 * 5 / length * 1.3, 4 + 0.05 * 5 / length * 0.6], rtol=1e-10)


def test_it_is_timms_where_timm_is_installed():
    timm = pytest.importorskip("timm.optim.lamb")
    starts, gradients = given(1)
    theirs = [torch.nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = timm.Lamb(theirs, lr=0.05, weight_decay=0.02)
    for step in gradients:
        for parameter, gradient in zip(theirs, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    for got, expected in zip(moved(starts, gradients, weight_decay=0.02), theirs, strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10)


def test_its_state_continues_from_a_file_bit_for_bit(tmp_path):
    starts, gradients = given(2)
    whole = moved(starts, gradients, dtype=torch.float32)

    parameters = [torch.nn.Parameter(torch.tensor(start, dtype=torch.float32)) for start in starts]
    optimizer = Lamb(parameters, lr=0.05)
    for number, step in enumerate(gradients):
        if number == 3:
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            optimizer = Lamb(parameters, lr=0.05)
            optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    for parameter, expected in zip(parameters, whole, strict=True):
        assert np.array_equal(parameter.detach().numpy(), expected)


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"lr": -1.0}, "lr"), ({"betas": (0.9, 1.0)}, "betas"), ({"betas": (0.9,)}, "betas"), ({"eps": 0.0}, "eps"),
     ({"weight_decay": -1.0}, "weight_decay"), ({"max_grad_norm": 0.0}, "max_grad_norm")],
)  # fmt: skip
def test_a_setting_out_of_its_range_is_named(settings, key):
    with pytest.raises(UserError, match=f"optimizer.{key} must be "):
        Lamb([torch.nn.Parameter(torch.zeros(1))], **settings)
