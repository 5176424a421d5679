"""Class weights, focal loss and top-5 accuracy of a classification."""

from __future__ import annotations

import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.classification import ClassificationTask


class Data:
    """As much of a data module as the task asks."""

    def __init__(self, targets, classes):
        self.targets, self.classes = targets, classes

    def train_targets(self):
        return self.targets

    def sizes(self):
        return {"num_classes": self.classes}


LOGITS = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 30, (40,), generator=torch.Generator().manual_seed(1))


def test_balanced_weights_make_every_class_count_alike():
    targets = torch.tensor([0, 0, 0, 1, -1, -1])
    task = ClassificationTask(class_weights="balanced")
    task.fit(Data(targets, 2))
    assert task.class_weights.tolist() == pytest.approx([4 / 6, 4 / 2])
    logits = torch.randn(6, 2)
    known = targets >= 0
    each = F.cross_entropy(logits[known], targets[known], weight=task.class_weights, reduction="none")
    torch.testing.assert_close(task.loss(ModelOutput(logits), targets), each.mean())
    again = ClassificationTask(class_weights="balanced")
    again.restore(task.fitted())
    assert torch.equal(again.class_weights, task.class_weights)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_smoothing_and_focus_together_are_the_formula_and_what_validation_reports(soft, smoothing):
    weights = torch.linspace(0.5, 2, 30).tolist()
    task = ClassificationTask(smoothing, class_weights=weights, focal=2.0)
    target = F.softmax(LOGITS.flip(0), 1) if soft else TARGET
    wanted = target if soft else F.one_hot(target, 30).float()
    q = (1 - smoothing) * wanted + smoothing / 30
    p = LOGITS.softmax(1)
    expected = -(q * torch.tensor(weights) * (1 - p).square() * p.log()).sum(1).mean()
    torch.testing.assert_close(task.loss(ModelOutput(LOGITS), target), expected)
    evaluator = task.evaluator()
    evaluator.update(ModelOutput(LOGITS), None, Batch(LOGITS, target))
    assert evaluator.compute()["loss_task"] == pytest.approx(expected.item(), rel=1e-5)


def test_top_five_is_scikit_learns_and_counts_where_there_are_many_classes():
    task = ClassificationTask()
    task.fit(Data(TARGET, 30))
    evaluator = task.evaluator()
    evaluator.update(ModelOutput(LOGITS), ModelOutput(LOGITS * torch.linspace(-1, 1, 30)), Batch(LOGITS, TARGET))
    found = evaluator.compute()
    expected = sklearn.metrics.top_k_accuracy_score(TARGET, LOGITS, k=5, labels=range(30))
    assert found["top5"] == pytest.approx(expected)
    theirs = sklearn.metrics.top_k_accuracy_score(TARGET, LOGITS * torch.linspace(-1, 1, 30), k=5, labels=range(30))
    assert found["teacher_top5"] == pytest.approx(theirs)
    assert set(found) == {metric.name for metric in task.metrics}
    few = ClassificationTask()
    few.fit(Data(TARGET % 10, 10))
    assert "top5" not in {metric.name for metric in few.metrics}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: ClassificationTask(focal=-1), "task.focal"),
        (lambda: ClassificationTask(class_weights="even"), "task.class_weights"),
        (lambda: ClassificationTask(class_weights=[1.0, 0.0]), "task.class_weights"),
        (
            lambda: ClassificationTask(class_weights=[1.0, 2.0]).fit(Data(TARGET, 30)),
            "2 numbers, the data has 30 classes",
        ),
        (lambda: ClassificationTask(class_weights="balanced").fit(Data(TARGET.clamp(max=3), 30)), "is of class"),
    ],
)
def test_what_cannot_be_meant_is_refused(made, words):
    with pytest.raises(UserError, match=words):
        made()
