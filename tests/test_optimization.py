"""What turns a loss into a step, without a model or a method around it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.optimization import Optimization
from kd_lightning.schedules.learning_rate import RunLength

LENGTH = RunLength(8, 4)
HALF = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)


def made(weight: nn.Parameter, **arguments) -> Optimization:
    optimization = Optimization(partial(torch.optim.SGD, lr=1.0), **arguments)
    optimization.make_optimizer([weight])
    optimization.configure(LENGTH, mode="max", device=torch.device("cpu"))
    return optimization


def stepped(optimization: Optimization, weight: nn.Parameter, losses: int) -> None:
    for _ in range(losses):
        optimization.backward(weight.sum(), torch.Tensor.backward)
    optimization.step(lambda: [weight])


def test_accumulated_batches_make_one_step_of_their_mean():
    weight = nn.Parameter(torch.zeros(()))
    stepped(made(weight, accumulate_grad_batches=4), weight, 4)
    assert weight.item() == -1.0


def test_the_gradient_is_clipped_to_its_norm():
    weight = nn.Parameter(torch.zeros(4))
    stepped(made(weight, gradient_clip_val=1.0), weight, 1)  # gradient (1, 1, 1, 1), norm 2
    torch.testing.assert_close(weight.detach(), torch.full((4,), -0.5))


@pytest.mark.parametrize(("interval", "after_step", "after_epoch"), [("step", 0.5, 0.5), ("epoch", 1.0, 0.5)])
def test_a_schedule_follows_steps_or_epochs(interval, after_step, after_epoch):
    weight = nn.Parameter(torch.zeros(()))
    optimization = made(weight, scheduler=HALF, scheduler_interval=interval)
    stepped(optimization, weight, 1)
    assert optimization.optimizer.param_groups[0]["lr"] == after_step
    optimization.end_epoch()
    assert optimization.optimizer.param_groups[0]["lr"] == after_epoch


def test_a_state_that_comes_before_the_optimizer_waits_for_it():
    weight = nn.Parameter(torch.zeros(()))
    before = made(weight, scheduler=HALF, scheduler_interval="step")
    stepped(before, weight, 1)
    after = Optimization(partial(torch.optim.SGD, lr=1.0), scheduler=HALF, scheduler_interval="step")
    after.load_state(before.state())
    after.make_optimizer([weight])
    after.configure(LENGTH, mode="max", device=torch.device("cpu"))
    assert after.state() == before.state()


def test_an_optimizer_that_knows_its_parameters_already_is_refused():
    with pytest.raises(UserError, match=r"optimizer is a SGD, which knows some parameters already: give what makes it"):
        Optimization(torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.1))  # type: ignore[arg-type]
