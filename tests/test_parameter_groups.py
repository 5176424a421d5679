"""What an optimizer is made of: parameters as they are, or groups with rates and weight decay of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.models.mlp import MLP
from kd_lightning.optimizers.lamb import Lamb
from kd_lightning.parameter_groups import Grouping, check_settings, scale_rates
from kd_lightning.schedules.learning_rate import RunLength, make_scheduler, warmup_cosine


def student() -> MLP:
    return MLP([8, 8], 4, 3)


def settings(grouping: Grouping, model: nn.Module, others=(), **arguments):
    """Learning rate and weight decay of each parameter by name, an adapter's as "other"."""
    parameters = [*model.parameters(), *others]
    optimizer = torch.optim.AdamW(grouping.groups(model, parameters), lr=0.1, weight_decay=0.2, **arguments)
    scale_rates(optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(parameters)
    assert optimizer.param_groups[0]["lr"] == 0.1, "what is shown as the learning rate"
    return {
        names.get(id(parameter), "other"): (pytest.approx(group["lr"]), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_without_settings_the_parameters_are_given_as_they_are():
    model = student()
    parameters = list(model.parameters())
    assert all(a is b for a, b in zip(Grouping().groups(model, parameters), parameters, strict=True))
    assert Grouping(layer_decay=1.0).groups(model, parameters) == parameters


def test_layer_decay_slows_layers_and_leaves_adapters_and_layers_with_a_rate_alone():
    layers = {"hidden.0": {"lr": 0.03}}
    found = settings(Grouping(layers, layer_decay=0.5), student(), [nn.Parameter(torch.zeros(2, 2))])
    rates = {name: rate for name, (rate, _) in found.items()}
    assert {name: rates[f"{name}.weight"] for name in ("hidden.1.0", "classifier")} == {
        "hidden.1.0": 0.05,
        "classifier": 0.1,
    }
    assert rates["hidden.0.0.weight"] == 0.03
    assert rates["other"] == 0.1


def test_vectors_without_decay_keep_what_a_layer_says_of_itself():
    found = settings(Grouping({"classifier": {"weight_decay": 0.7}}, decay_vectors=False), student())
    decays = {name: decay for name, (_, decay) in found.items()}
    assert decays["hidden.0.0.weight"] == 0.2
    assert decays["hidden.0.0.bias"] == 0
    assert decays["classifier.bias"] == decays["classifier.weight"] == 0.7


def test_a_schedule_keeps_the_layers_ratios():
    model = student()
    optimizer = Lamb(Grouping(layer_decay=0.5, decay_vectors=False).groups(model, list(model.parameters())), lr=0.1)
    scale_rates(optimizer)
    before = [group["lr"] for group in optimizer.param_groups]
    make_scheduler(warmup_cosine, optimizer, "step", RunLength(100, 10))
    after = [group["lr"] for group in optimizer.param_groups]
    assert len(set(before)) == 3
    assert [b / a for a, b in zip(before, after, strict=True)] == pytest.approx([after[0] / before[0]] * len(before))


def test_an_optimizer_without_weight_decay_is_told():
    optimizer = torch.optim.LBFGS([nn.Parameter(torch.zeros(1))])
    with pytest.raises(UserError, match=r"optimizer\.decay_vectors: LBFGS has no weight decay"):
        check_settings({}, optimizer, decay_vectors=False)
