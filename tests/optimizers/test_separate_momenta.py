"""DOT and DeepKD follow the authors' optimizers step by step, from given gradients and from losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kd_lightning.errors import UserError
from kd_lightning.losses.deepkd import LikelyClassesLoss
from kd_lightning.losses.dkd import TrueClassLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.optimizers.deepkd import DeepKD
from kd_lightning.optimizers.dot import DOT
from kd_lightning.outputs import ModelOutput

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
DOT_CASES = {
    "m0.9_d0.075_wd5e-4": {"delta": 0.075, "weight_decay": 5e-4},
    "m0.9_d0.05_wd0.05_damp0.1": {"delta": 0.05, "weight_decay": 0.05, "dampening": 0.1},
}
DEEPKD_CASES = {
    "m0.9_default_wd5e-4": {"weight_decay": 5e-4},
    "m0.9_ncg0.05_wd0.05_damp0.1": {"delta_other_classes": 0.05, "weight_decay": 0.05, "dampening": 0.1},
}
NAMES = {"task": "task", "kd": "distillation", "tcg": "true_class", "ncg": "other_classes"}


def arrays(file):
    with np.load(GOLDEN / f"{file}.npz") as stored:
        return {name: torch.from_numpy(value) for name, value in stored.items()}


def optimizer_of(file, case, params):
    if file == "dot_optim":
        return DOT(params, lr=0.1, **DOT_CASES[case])
    return DeepKD(params, lr=0.1, form="authors_code", **DEEPKD_CASES[case])


CASES = [("dot_optim", case) for case in DOT_CASES] + [("deepkd_optim", case) for case in DEEPKD_CASES]


@pytest.mark.parametrize(("file", "case"), CASES)
def test_given_gradients_move_parameters_as_the_authors_optimizer_does(file, case):
    stored = arrays(file)
    names = [key.removeprefix("in/p0.") for key in stored if key.startswith("in/p0.")]
    parameters = {name: torch.nn.Parameter(stored[f"in/p0.{name}"].clone()) for name in names}
    optimizer = optimizer_of(file, case, list(parameters.values()))
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        for phase, part in NAMES.items():
            for name, parameter in parameters.items():
                gradient = stored.get(f"in/g_{phase}.{name}")
                parameter.grad = None if gradient is None else gradient[step].clone()
            if part in optimizer.parts:
                optimizer.collect(part)
        optimizer.step()
        for name, parameter in parameters.items():
            expected = stored[f"grads_{case}/traj.{name}"][step + 1]
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("file", "case"), CASES)
def test_losses_of_a_small_network_follow_the_authors_trajectory(file, case):
    stored = arrays(file)
    weights = {name: torch.nn.Parameter(stored[f"in/mlp.{name}"].clone()) for name in ("w1", "b1", "w2", "b2")}
    optimizer = optimizer_of(file, case, list(weights.values()))
    terms = {"distillation": SoftTargetLoss(4.0)}
    if file == "deepkd_optim":
        terms = {"true_class": TrueClassLoss(4.0), "other_classes": LikelyClassesLoss(4.0, top_k=3)}
    factor = {"other_classes": 2.0}
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        x, y, teacher = (stored[f"in/mlp.{name}"][step] for name in ("x", "y", "teacher_logits"))
        logits = torch.relu(x @ weights["w1"].T + weights["b1"]) @ weights["w2"].T + weights["b2"]
        losses = {name: term(ModelOutput(logits), ModelOutput(teacher), y) for name, term in terms.items()}
        losses = {name: factor.get(name, 1.0) * loss for name, loss in losses.items()}
        for part, loss in {"task": F.cross_entropy(logits, y), **losses}.items():
            loss.backward(retain_graph=True)
            optimizer.collect(part)
        optimizer.step()
        for name, weight in weights.items():
            expected = stored[f"mlp_{case}/traj.{name}"][step + 1]
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-7, atol=1e-9)


def test_without_a_difference_dot_is_sgd_on_the_sum():
    start = torch.randn(3, 2, dtype=torch.float64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in "ab")
    dot = DOT([ours], lr=0.1, momentum=0.9, delta=0.0)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for _ in range(5):
        gradients = torch.randn(2, 3, 2, dtype=torch.float64)
        for part, gradient in zip(dot.parts, gradients, strict=True):
            ours.grad = gradient.clone()
            dot.collect(part)
        theirs.grad = gradients.sum(0)
        dot.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_its_state_continues_from_a_checkpoint():
    start, gradients = torch.randn(3), torch.randn(4, 2, 3)

    def steps(optimizer, parameter, which):
        for k in which:
            for part, gradient in zip(optimizer.parts, gradients[k], strict=True):
                parameter.grad = gradient.clone()
                optimizer.collect(part)
            optimizer.step()

    whole = torch.nn.Parameter(start.clone())
    steps(DOT([whole]), whole, range(4))
    first = torch.nn.Parameter(start.clone())
    optimizer = DOT([first])
    steps(optimizer, first, range(2))
    second = torch.nn.Parameter(first.detach().clone())
    continued = DOT([second])
    continued.load_state_dict(optimizer.state_dict())
    steps(continued, second, range(2, 4))
    torch.testing.assert_close(second, whole)


def test_momenta_out_of_range_are_named():
    parameter = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(UserError, match=r"optimizer\.delta=0\.2"):
        DOT([parameter], momentum=0.9, delta=0.2)
    with pytest.raises(UserError, match=r"optimizer\.delta_task"):
        DeepKD([parameter], delta_task=0.2)
    with pytest.raises(UserError, match=r"optimizer\.form"):
        DeepKD([parameter], form="other")
