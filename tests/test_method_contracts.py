"""What holds for every shipped method, found by its file: precision, gradients, state, the order of a batch."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import method_builds
import pytest
import torch
from method_builds import METHODS, built, networks, one_step, tapped

from kd_lightning.errors import UserError
from kd_lightning.taps import Taps

OF_MAPS = [path for path in METHODS if any(layer.startswith(("blocks", "layer")) for layer in tapped(path)["student"])]
OF_PLACES = {"crd", "mgd", "semckd"}  # draw or learn something for each place in the batch


def made(path):
    torch.manual_seed(0)
    return built(path), *networks(path)


def gradient(student):
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_no_gradient_reaches_the_teacher_and_its_buffers_stay(path):
    method, student, teacher = made(path)
    before = copy.deepcopy(teacher.state_dict())
    one_step(method, student, teacher, torch.randn(8, 1, 8, 8))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_in_mixed_precision_loss_and_gradient_stay_finite_and_near(path):
    inputs = torch.randn(8, 1, 8, 8)
    parts = []
    for enabled in (False, True):
        method, student, teacher = made(path)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            parts.append(one_step(method, student, teacher, inputs))
        assert torch.isfinite(gradient(student)).all()
    for name, value in parts[0].items():
        assert parts[1][name].dtype == value.dtype == torch.float32, name


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_its_state_comes_back_from_a_checkpoint(path):
    inputs = torch.randn(8, 1, 8, 8)
    method, student, teacher = made(path)
    one_step(method, student, teacher, inputs)
    method.eval()
    state, student_state = method.state_dict(), student.state_dict()
    again = built(path)
    torch.manual_seed(7)
    fresh = networks(path)[0]
    one_step(again, fresh, teacher, inputs)  # prepared: its adapters have their shapes
    again.load_state_dict(state)
    fresh.load_state_dict(student_state)
    assert again.state_dict().keys() == state.keys()
    values = []
    for one, other in ((method, student), (again, fresh)):
        torch.manual_seed(3)
        values.append(one_step(one.eval(), other, teacher, inputs))
    for name, value in values[0].items():
        torch.testing.assert_close(values[1][name], value, msg=name)


@pytest.mark.parametrize("tokens_of", ["student", "teacher"])
@pytest.mark.parametrize("path", OF_MAPS, ids=lambda path: path.stem)
def test_tokens_where_the_other_model_has_maps_work_or_are_refused_with_words_for_the_user(
    path, tokens_of, monkeypatch
):
    class TokenTaps(Taps):
        def __init__(self, module, layers, role="student"):
            super().__init__(module, layers, role=role)
            self.turned = role == tokens_of

        def __call__(self, model, inputs):
            output = super().__call__(model, inputs)
            features = {
                name: value.flatten(2).transpose(1, 2) if value.ndim == 4 else value
                for name, value in output.features.items()
            }
            return replace(output, features=features) if self.turned else output

    monkeypatch.setattr(method_builds, "Taps", TokenTaps)
    method, student, teacher = made(path)
    with contextlib.suppress(UserError):
        one_step(method, student, teacher, torch.randn(8, 1, 8, 8))


@pytest.mark.parametrize(
    "path",
    [path for path in METHODS if path.stem not in OF_PLACES],
    ids=lambda path: path.stem,
)
def test_the_order_of_a_batch_does_not_matter(path):
    inputs = torch.randn(8, 1, 8, 8)
    other, values = inputs + 0.1 * torch.randn_like(inputs), []
    for order in (torch.arange(8), torch.tensor([3, 1, 0, 2, 4, 7, 5, 6])):
        method, student, teacher = made(path)
        torch.manual_seed(1)
        values.append(one_step(method, student, teacher, inputs[order], other[order], order))
    for name, value in values[0].items():
        torch.testing.assert_close(values[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
