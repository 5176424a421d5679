from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.losses.logits_mse import LogitsMSELoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput


class Forbidden(nn.Module):
    """A term that must not be computed."""

    def forward(self, student, teacher, target):
        raise AssertionError("a term of weight 0 was computed")


class Learned(nn.Module):
    """A term with an adapter whose shape is only known from an example."""

    def prepare(self, student, teacher):
        self.adapter = nn.Linear(student.logits.shape[1], teacher.features["tap"].shape[1])

    def forward(self, student, teacher, target):
        return F.mse_loss(self.adapter(student.logits), teacher.features["tap"])


def outputs():
    generator = torch.Generator().manual_seed(0)
    student = ModelOutput(torch.randn(4, 10, generator=generator).requires_grad_())
    teacher = ModelOutput(torch.randn(4, 10, generator=generator), {"tap": torch.randn(4, 3, generator=generator)})
    return student, teacher, torch.tensor([1, 2, 3, -1])


def test_total_is_the_weighted_sum_and_parts_are_unweighted_and_detached():
    student, teacher, target = outputs()
    method = Method({"kd": SoftTargetLoss(2.0), "mse": LogitsMSELoss()}, {"task": 0.2, "kd": 0.5, "mse": 3}, 2.0)
    task_loss = F.cross_entropy(student.logits, target, ignore_index=-1)
    total, parts = method(student, teacher, target, task_loss)
    assert list(parts) == ["task", "kd", "mse"]
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(total.detach(), 0.2 * parts["task"] + 0.5 * parts["kd"] + 3 * parts["mse"])
    torch.testing.assert_close(parts["task"], task_loss.detach())
    total.backward()
    assert student.logits.grad.abs().sum() > 0


def test_a_term_of_weight_zero_is_neither_computed_nor_prepared():
    student, _, target = outputs()
    method = Method({"off": Forbidden(), "learned": Learned()}, {"task": 1, "off": 0, "learned": 0})
    method.prepare(student, None)
    total, parts = method(student, None, target, torch.tensor(2.0))
    assert total == 2
    assert list(parts) == ["task"]
    assert not method.needs_teacher
    assert not list(method.parameters())


def test_a_task_of_weight_zero_does_not_spoil_the_total_where_no_label_is_known():
    student, teacher, target = outputs()
    method = Method({"kd": SoftTargetLoss()}, {"task": 0.0, "kd": 1.0})
    total, parts = method(student, teacher, torch.full_like(target, -1), torch.tensor(float("nan")))
    assert torch.isfinite(total)
    assert method.needs_teacher
    assert torch.isnan(parts["task"])


def test_adapters_are_parameters_of_the_method_after_prepare():
    student, teacher, target = outputs()
    method = Method({"learned": Learned()}, {"task": 0, "learned": 1})
    method.prepare(student, teacher)
    assert sorted(name for name, _ in method.named_parameters()) == [
        "terms.learned.adapter.bias",
        "terms.learned.adapter.weight",
    ]
    method(student, teacher, target, torch.tensor(0.0))[0].backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"task": 1, "kd": 1, "kdd": 1}, r"method\.weights\.kdd: .* did you mean method\.weights\.kd\?"),
        ({"task": 1, "other": 1, "kd": 1}, r"method\.weights\.other: .* known are task, kd"),
        ({"task": 1}, r"method\.weights\.kd is missing"),
        ({"kd": 1}, r"method\.weights\.task is missing"),
        ({"task": 1, "kd": -0.1}, r"method\.weights\.kd must be a finite number >= 0, got -0\.1"),
        ({"task": 1, "kd": float("nan")}, r"method\.weights\.kd must be a finite"),
        ({"task": 1, "kd": "0.9"}, r"method\.weights\.kd must be a number"),
        ({"task": 1, "kd": True}, r"method\.weights\.kd must be a number"),
        ({"task": 0, "kd": 0.0}, r"all weights are 0.*method\.weights\.task, method\.weights\.kd"),
    ],
)
def test_weights_that_cannot_be_meant_are_named(weights, says):
    with pytest.raises(UserError, match=says) as caught:
        Method({"kd": SoftTargetLoss()}, weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [0, -4, float("nan")])
def test_a_temperature_that_cannot_be_is_named(temperature):
    with pytest.raises(UserError, match=r"method\.temperature"):
        Method({}, {"task": 1}, temperature=temperature)


def test_a_term_that_is_no_module_or_takes_the_tasks_name_is_named():
    with pytest.raises(UserError, match=r"method\.terms\.kd must be an nn\.Module"):
        Method({"kd": {"temperature": 4}}, {"task": 1, "kd": 1})
    with pytest.raises(UserError, match=r"method\.terms\.task"):
        Method({"task": SoftTargetLoss()}, {"task": 1})


def test_a_term_that_returns_no_scalar_is_named():
    class Vector(nn.Module):
        def forward(self, student, teacher, target):
            return student.logits

    student, teacher, target = outputs()
    with pytest.raises(
        UserError, match=r"method\.terms\.v must return a scalar tensor, got a tensor of shape \(4, 10\)"
    ):
        Method({"v": Vector()}, {"task": 1, "v": 1})(student, teacher, target, torch.tensor(0.0))


def test_taps_of_an_unknown_role_are_named():
    with pytest.raises(UserError, match=r"method\.taps\.pupil"):
        Method({}, {"task": 1}, taps={"pupil": {"a": "b"}})
