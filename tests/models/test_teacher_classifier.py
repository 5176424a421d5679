"""A student that ends in its teacher's classifier: made, trained, opened again without the teacher."""

from __future__ import annotations

import json

import pytest
import torch
from processes import SMALL

from kd_lightning.cli.train import main
from kd_lightning.errors import UserError
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8, resnet14
from kd_lightning.models.teacher_classifier import with_teacher_classifier
from kd_lightning.running.open_run import open_run

PICTURES = torch.randn(3, 3, 16, 16)


def test_its_last_layer_is_the_teachers_and_learns_nothing():
    student, teacher = MLP([8], 3 * 16 * 16, 10), MLP([12], 3 * 16 * 16, 10)
    made = with_teacher_classifier(student, "hidden", teacher=teacher, example=PICTURES)
    assert torch.equal(made.classifier.weight, teacher.classifier.weight)
    assert made.classifier is not teacher.classifier
    made(PICTURES).sum().backward()
    assert made.classifier.weight.grad is None
    assert made.hidden[0][0][0].weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("size", [None, 2])
def test_weights_alone_say_how_it_is_made(size):
    made = with_teacher_classifier(
        resnet8(num_classes=10), "layer3", size=size, teacher=resnet14(num_classes=10), example=PICTURES
    ).eval()
    again = with_teacher_classifier(resnet8(num_classes=10), "layer3", size=size, weights=made.state_dict()).eval()
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(PICTURES), made(PICTURES))


@pytest.mark.parametrize(
    ("layer", "teacher", "words"),
    [
        ("hiden", MLP([12], 768, 10), "no layer 'hiden'; did you mean hidden"),
        ("classifier", MLP([12], 768, 10), "is the student's classifier itself"),
        ("hidden", None, "needs a teacher that is one network"),
        ("hidden.0", MLP([12], 768, 10), "does not take the 12 channels of the teacher"),
    ],
)
def test_what_cannot_be_is_one_line(layer, teacher, words):
    with pytest.raises(UserError, match=words):
        with_teacher_classifier(MLP([8, 8], 768, 10), layer, teacher=teacher, example=PICTURES)


def test_a_run_is_opened_again_with_projector_and_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "baseline=false", "method=simkd", "run_dir=run"]) == 0
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    run = open_run("run")
    assert not run.student.classifier.weight.requires_grad
    assert run.student.hidden[1][2].out_features == run.student.classifier.in_features
    assert run.predict(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert metrics["test/acc"] > 0.1
