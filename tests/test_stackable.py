"""Which students may run as one: what the weights do not tell has to be seen, or it would be silently the first one's."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.optimizers.dot import DOT
from kd_lightning.stackable import difference, why_not
from kd_lightning.tasks.classification import ClassificationTask


def member(student: nn.Module, **settings) -> Member:
    method = Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.1, "kd": 0.9}, 4.0)
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    return Member(student, method, ClassificationTask(), **{"optimizer": optimizer, "name": "a", **settings})


class Scaled(nn.Module):
    """What its code reads beside weights."""

    def __init__(self, scale):
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 2), scale

    def forward(self, x):
        return self.fc(x) * 2


def test_students_of_other_seeds_methods_and_rates_differ_in_nothing():
    assert difference(member(MLP([8], 4, 2)), member(MLP([8], 4, 2), gradient_clip_val=1.0, seed=3)) is None


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (MLP([8], 4, 2), MLP([8, 8], 4, 2), "other layers"),
        (MLP([8], 4, 2), MLP([9], 4, 2), "layer hidden.0.0, is set otherwise"),
        (SmallViT(4, 16, 1, 2, 1, 10, 8), SmallViT(4, 16, 1, 4, 1, 10, 8), "is set otherwise"),
        (nn.Conv2d(4, 4, 1, groups=1), nn.Conv2d(4, 4, 1, groups=1, stride=2), "is set otherwise"),
        (Scaled(1.0), Scaled(2.0), "its student, is set otherwise".replace(",", "")),
        (Scaled(lambda x: x), Scaled(lambda x: x), "is set otherwise"),
        (MLP([8], 4, 2), MLP([8], 4, 2).requires_grad_(False), "others that learn"),
        (MLP([8], 4, 2), MLP([8], 4, 2).double(), "other shapes or types"),
    ],
)
def test_what_weights_do_not_tell_is_seen(one, other, said):
    assert said in (difference(member(one), member(other)) or "")


def test_a_layer_that_is_frozen_in_one_only_is_seen():
    one, other = member(MLP([8], 4, 2)), member(MLP([8], 4, 2), layers={"hidden": {"frozen": True}})
    assert difference(one.train(), other.train()) is not None


def test_another_precision_is_seen():
    assert "precision" in (difference(member(MLP([8], 4, 2)), member(MLP([8], 4, 2), precision="bf16-mixed")) or "")


def compiled() -> Member:
    found = member(MLP([8], 4, 2))
    found.student.compile(backend="eager")
    return found


def hooked() -> Member:
    found = member(MLP([8], 4, 2))
    found.student.classifier.register_forward_hook(lambda *_: None)
    return found


def several_gradients() -> Member:
    found = member(MLP([8], 4, 2), optimizer=functools.partial(DOT, lr=0.1))
    found.optimization.make_optimizer(found.trained_parameters())
    return found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (compiled, "compiled"),
        (hooked, "hooks are set"),
        (several_gradients, "several gradients"),
        (lambda: member(nn.LSTM(4, 2)), "keeps a tensor"),
        (lambda: member(Scaled(torch.ones(2))), r"no buffer (scale)"),
    ],
)
def test_who_cannot_run_with_others_says_why(make, said):
    assert said in (why_not(make()) or "")


def test_a_student_with_taps_can():
    method = Method(
        {"kd": SoftTargetLoss(4.0)}, {"task": 1.0, "kd": 1.0}, 4.0, {"student": {"hint": "hidden.0"}, "teacher": {}}
    )
    found = Member(MLP([8], 4, 2), method, ClassificationTask(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    assert why_not(found) is None
