"""Schedules of weights and temperatures: their values, and what of them cannot be meant."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput
from kd_lightning.schedules import Cosine, Hold, Piecewise, Ramp


def by_epoch(schedule, epochs=5, steps_per_epoch=10):
    total = epochs * steps_per_epoch
    return [schedule(Clock(e, e * steps_per_epoch, total, steps_per_epoch)) for e in range(epochs)]


def by_step(schedule, steps):
    return [schedule(Clock(step // 10, step, steps, 10)) for step in range(steps)]


def test_a_ramp_over_n_epochs_has_k_nths_in_the_kth_epoch_and_stays():
    assert by_epoch(Ramp(to=8, epochs=4)) == [2, 4, 6, 8, 8]
    assert by_epoch(Ramp(to=1, epochs=2, start=3)) == [2, 1, 1, 1, 1]


def test_a_ramp_over_steps_or_over_the_whole_run_ends_with_its_last_step():
    assert by_step(Ramp(to=1, steps=4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert by_step(Ramp(to=1), 4) == [0.25, 0.5, 0.75, 1]


def test_a_cosine_is_slow_at_both_ends_and_meets_the_ramp_half_way():
    values = by_epoch(Cosine(to=2, epochs=4))
    assert values[1] == pytest.approx(1)
    assert values[0] < 0.5
    assert values[3:] == [2, 2]


def test_hold_sets_in_after_so_many_epochs_or_steps():
    assert by_epoch(Hold(to=5, epochs=2)) == [0, 0, 5, 5, 5]
    assert by_step(Hold(to=5, steps=1, start=1), 3) == [1, 5, 5]


def test_pieces_change_where_they_are_told_to():
    assert by_epoch(Piecewise([0, 1, 0.5], epochs=[1, 3])) == [0, 1, 1, 0.5, 0.5]
    assert by_step(Piecewise([2, 0], steps=[2]), 4) == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Ramp(to=-1), "to must be a finite number >= 0, got -1"),
        (lambda: Ramp(to=float("inf")), "to must be a finite number"),
        (lambda: Ramp(to=1, epochs=0), "epochs must be a whole number >= 1, got 0"),
        (lambda: Ramp(to=1, epochs=2.5), "epochs must be a whole number"),
        (lambda: Ramp(to=1, epochs=2, steps=3), "epochs or steps, got both"),
        (lambda: Hold(to=1), "needs epochs or steps"),
        (lambda: Piecewise([1, 2], epochs=[3, 4]), "2 values need 1 ascending places"),
        (lambda: Piecewise([1, 2, 3], epochs=[4, 4]), "3 values need 2 ascending places"),
        (lambda: Piecewise([1, 2]), "in epochs or in steps"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_one_line(make, says):
    with pytest.raises(UserError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def outputs():
    g = torch.Generator().manual_seed(0)
    return ModelOutput(torch.randn(4, 10, generator=g)), ModelOutput(torch.randn(4, 10, generator=g)), torch.arange(4)


class Counts(nn.Module):
    calls = 0

    def forward(self, student, teacher, target):
        self.calls += 1
        return student.logits.sum()


def test_a_term_is_not_computed_while_its_schedule_is_0_but_needs_its_teacher_all_along():
    student, teacher, target = outputs()
    term = Counts()
    method = Method({"late": term}, {"task": 1.0, "late": Hold(to=2, epochs=3)})
    assert method.needs_teacher
    assert method.active == ["late"]
    for epoch, calls in ((0, 0), (2, 0), (3, 1)):
        total, parts = method(student, teacher, target, torch.tensor(0.5), clock=Clock(epoch, epoch, 9, 1))
        assert term.calls == calls
        assert ("late" in parts) == (calls > 0)
        torch.testing.assert_close(total, 0.5 + 2 * parts.get("late", torch.tensor(0.0)))
    assert method.scheduled == {"weight_late": 2.0}


def test_terms_that_interpolate_the_temperature_follow_its_schedule_at_each_step():
    student, teacher, target = outputs()
    ramp = {"_target_": "kd_lightning.schedules.Ramp", "to": 8, "epochs": 4}
    method = Method({"kd": SoftTargetLoss(instantiate(ramp))}, {"task": 0.0, "kd": 1.0}, temperature=instantiate(ramp))
    for epoch, temperature in enumerate((2.0, 4.0, 6.0, 8.0, 8.0)):
        total, _ = method(student, teacher, target, torch.tensor(0.0), clock=Clock(epoch, epoch, 9, 1))
        assert method.temperature == method.terms["kd"].temperature == temperature
        torch.testing.assert_close(total, SoftTargetLoss(temperature)(student, teacher, target))
        assert method.scheduled == {"temperature": temperature}


def test_any_callable_of_the_clock_is_a_schedule_and_what_it_gives_is_checked():
    student, teacher, target = outputs()
    method = Method({"kd": SoftTargetLoss()}, {"task": 1.0, "kd": lambda clock: 1.0 - clock.step})
    method(student, teacher, target, torch.tensor(0.0), clock=Clock(0, 1, 9, 1))
    with pytest.raises(
        UserError, match=r"method\.weights\.kd: .* gave -1\.0 in epoch 0, step 2: must be finite and >= 0"
    ):
        method(student, teacher, target, torch.tensor(0.0), clock=Clock(0, 2, 9, 1))


@pytest.mark.parametrize(
    ("weight", "temperature", "says"),
    [
        (Ramp(to=0, epochs=3), 4.0, r"method\.weights\.kd: Ramp\(.*\) never leaves 0"),
        (1.0, Hold(to=4, epochs=2), r"method\.temperature: Hold\(.*\) reaches 0"),
        (1.0, Piecewise([4, 0], epochs=[2]), r"method\.temperature: Piecewise\(.*\) reaches 0"),
    ],
)
def test_a_schedule_that_does_not_suit_its_key_is_named(weight, temperature, says):
    with pytest.raises(UserError, match=says):
        Method({"kd": SoftTargetLoss()}, {"task": 1.0, "kd": weight}, temperature)


def test_a_step_in_which_every_weight_is_0_has_a_gradient_of_0():
    student, teacher, target = outputs()
    student.logits.requires_grad_()
    method = Method({"kd": SoftTargetLoss()}, {"task": 0.0, "kd": Hold(to=1, epochs=1)})
    total, parts = method(student, teacher, target, torch.tensor(3.0), clock=Clock(0, 0, 9, 1))
    total.backward()
    assert total == 0
    assert list(parts) == ["task"]
    assert not student.logits.grad.any()
