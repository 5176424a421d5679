"""A vision transformer with a token that learns from the teacher: which head learns what, and what is asked afterwards."""

from __future__ import annotations

import json

import pytest
import torch
from processes import SMALL
from torch import nn
from torch.nn import functional as F

from kd_lightning.cli.train import main
from kd_lightning.errors import UserError
from kd_lightning.losses.hard_label import HardLabelLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.distillation_token import with_distillation_token
from kd_lightning.models.mlp import MLP
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.outputs import ModelOutput
from kd_lightning.running.open_run import open_run
from kd_lightning.tasks.classification import ClassificationTask

PICTURES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def made():
    torch.manual_seed(0)
    return with_distillation_token(SmallViT(patch=4, width=16, image_size=8))


def test_in_training_it_answers_with_the_label_head_and_afterwards_with_the_mean_of_both():
    model = made()
    heads = {}
    model.distillation.register_forward_hook(lambda layer, given, made: heads.update(taught=made))
    label = model.train()(PICTURES)
    taught = heads["taught"]
    assert not torch.equal(label, taught)
    torch.testing.assert_close(model.eval()(PICTURES), (label + taught) / 2)


def test_the_token_learns_the_teachers_decision_and_the_other_head_the_label():
    taps = {"student": {"token": "distillation"}, "teacher": {}}
    method = Method({"hard_label": HardLabelLoss(tap="token")}, {"task": 0.5, "hard_label": 0.5}, None, taps=taps)
    member = Member(made(), method, ClassificationTask(), optimizer=torch.optim.SGD).train()
    target, decision = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    answer = member.answer(PICTURES)
    teacher = ModelOutput(9.0 * F.one_hot(decision, 10))
    total, _ = method(answer, teacher, target, F.cross_entropy(answer.logits, target))
    taught = answer.features["token"]
    torch.testing.assert_close(
        total, 0.5 * F.cross_entropy(answer.logits, target) + 0.5 * F.cross_entropy(taught, decision)
    )
    label_head, token_head = member.student.vit.classifier.bias, member.student.distillation.bias
    total.backward()
    assert label_head.grad.argmin() < 3 <= token_head.grad.argmin() < 6
    assert member.student.token.grad.abs().sum() > 0


def test_another_student_is_refused_by_name():
    with pytest.raises(UserError, match=r"the student is a MLP: take student=small_vit, or leave preset=token out"):
        with_distillation_token(MLP([8], 64, 10))
    with pytest.raises(UserError, match=r"the student is a Linear"):
        with_distillation_token(nn.Linear(3, 2))


@pytest.mark.slow
def test_a_run_keeps_token_and_head_in_what_it_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in SMALL if not word.startswith("student.")]
    vit = ("student=small_vit", "student.patch=4", "student.width=16", "student.depth=1")
    assert main([*words, *vit, "method=hard_label", "preset=token", "baseline=false", "run_dir=run"]) == 0
    student = open_run("run").student
    assert {"token", "distillation.weight", "vit.classifier.weight"} <= set(student.state_dict())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["student"]["parameters"] == sum(p.numel() for p in student.parameters())
