"""A yes or no for each class: figures against scikit-learn, losses against torch, unknown answers, one logit."""

from __future__ import annotations

import math

import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from kd_lightning.batch import Batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError
from kd_lightning.losses.soft_sigmoid import SoftSigmoidLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.multilabel import MultilabelTask


class Given(DistillationDataModule):
    def __init__(self, targets, classes):
        super().__init__(batch_size=2, val_size=2)
        self.given, self.num_classes = targets, classes

    def build_splits(self):
        inputs = torch.zeros(len(self.given), 3)
        return ArrayData(inputs, self.given), ArrayData(inputs[:2], self.given[:2]), "digest"

    def sizes(self):
        return {"num_classes": self.num_classes}


def fitted(targets, classes=None, **settings):
    task = MultilabelTask(**settings)
    task.fit(Given(targets, classes or targets.shape[1]))
    return task


@pytest.fixture(scope="module")
def sample():
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(300, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.1, 0.7])).long()
    student, teacher = (truth * 2 - 1 + k * torch.randn(300, 4, generator=generator) for k in (2.0, 1.0))
    return truth, student, teacher


def figures(task, truth, student, teacher=None, batch=64):
    evaluator = task.evaluator()
    for start in range(0, len(truth), batch):
        part = slice(start, start + batch)
        answer = None if teacher is None else ModelOutput(teacher[part])
        evaluator.update(ModelOutput(student[part]), answer, Batch(truth[part], truth[part]))
    return evaluator.compute()


def test_figures_are_scikit_learns(sample):
    truth, student, teacher = sample
    found = figures(fitted(truth), truth, student, teacher)
    y, p = truth.numpy(), student.sigmoid().numpy()
    assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, p), abs=1e-3)
    assert found["teacher_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, teacher.numpy()), abs=1e-3)
    assert found["f1"] == pytest.approx(sklearn.metrics.f1_score(y, p > 0.5, average="macro"))
    assert found["exact"] == pytest.approx(sklearn.metrics.accuracy_score(y, p > 0.5))
    assert found["loss_task"] == pytest.approx(
        float(F.binary_cross_entropy_with_logits(student, truth.float())), rel=1e-5
    )
    assert found["agreement"] == pytest.approx(float(((student > 0) == (teacher > 0)).float().mean()))
    assert found["kl_teacher"] > 0
    assert set(found) == {metric.name for metric in MultilabelTask.metrics}


def test_an_answer_that_is_not_known_counts_for_nothing(sample):
    truth, student, _ = sample
    task = fitted(truth)
    masked = truth.clone()
    masked[:, 2] = -1
    masked[7] = -1
    logits = student.clone().requires_grad_()
    loss = task.loss(ModelOutput(logits), masked)
    loss.backward()
    known = masked >= 0
    assert loss.item() == pytest.approx(
        float(F.binary_cross_entropy_with_logits(student[known], truth[known].float())), rel=1e-5
    )
    assert (logits.grad[~known] == 0).all()
    as_floats = torch.where(known, masked.float(), math.nan)
    assert torch.equal(task.loss(ModelOutput(student), as_floats), loss.detach())
    assert task.loss(ModelOutput(student), torch.full_like(truth, -1)).item() == 0


def test_two_classes_take_one_logit_and_more_are_questions_of_their_own():
    two = fitted(torch.tensor([0, 1, 1, 0, -1]), classes=2)
    assert two.sizes({"num_classes": 2, "in_features": 3}) == {"num_classes": 1, "in_features": 3}
    logits, target = torch.tensor([0.3, -1.0]), torch.tensor([1, 0])
    expected = F.cross_entropy(torch.stack([torch.zeros(2), logits], 1), target)
    torch.testing.assert_close(two.loss(two.read(ModelOutput(logits)), target), expected)
    again = MultilabelTask()
    again.restore(two.fitted())
    assert again.sizes({"num_classes": 2}) == {"num_classes": 1}
    three = fitted(torch.tensor([0, 1, 2]), classes=3)
    logits = torch.randn(2, 3)
    expected = F.binary_cross_entropy_with_logits(logits, F.one_hot(torch.tensor([2, 0]), 3).float())
    torch.testing.assert_close(three.loss(ModelOutput(logits), torch.tensor([2, 0])), expected)


def test_weights_and_focus_are_those_of_the_formulas(sample):
    truth, student, _ = sample
    task = fitted(truth, positive_weight="balanced")
    counts = truth.sum(0)
    weights = (300 - counts) / counts
    expected = F.binary_cross_entropy_with_logits(student, truth.float(), pos_weight=weights)
    torch.testing.assert_close(task.loss(ModelOutput(student), truth), expected)
    focal = MultilabelTask(focal=2.0)
    p = student.sigmoid()
    right = torch.where(truth == 1, p, 1 - p)
    expected = (-(1 - right).square() * right.log()).mean()
    torch.testing.assert_close(focal.loss(ModelOutput(student), truth), expected, rtol=1e-4, atol=1e-5)


def test_soft_sigmoids_of_one_logit_are_soft_targets_of_two(sample):
    _, student, teacher = sample
    pairs = [torch.stack([torch.zeros(300), logits[:, 0]], 1).double() for logits in (student, teacher)]
    ours = SoftSigmoidLoss(3.0)(*(ModelOutput(logits[:, :1].double()) for logits in (student, teacher)), None)
    theirs = SoftTargetLoss(3.0)(*map(ModelOutput, pairs), torch.zeros(300).long())
    torch.testing.assert_close(ours, theirs)
    assert SoftSigmoidLoss()(ModelOutput(student), ModelOutput(student), None).abs() < 1e-7


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: MultilabelTask(focal=-1), "task.focal"),
        (lambda: MultilabelTask(positive_weight=0), "positive_weight"),
        (lambda: MultilabelTask(positive_weight="even"), "positive_weight"),
        (lambda: fitted(torch.tensor([[0, 2], [1, 0]])), "a label is 2"),
        (lambda: fitted(torch.tensor([[0, 1], [0, 0]]), positive_weight="balanced"), "has no yes"),
        (
            lambda: fitted(torch.tensor([[0, 1], [1, 0]]), positive_weight=[1, 2, 3]),
            "3 numbers, the data has 2 classes",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(made, words):
    with pytest.raises(UserError, match=words):
        made()


def test_a_model_of_other_classes_is_refused():
    task = fitted(torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(UserError, match="set num_classes=2"):
        task.check_output(ModelOutput(torch.zeros(2, 3)), None, "student")
