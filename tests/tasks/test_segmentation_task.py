"""Segmentation: figures over the whole set against scikit-learn, pixels without a label count nowhere, masks are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock, Step
from kd_lightning.outputs import ModelOutput, as_model_output, unused_heads
from kd_lightning.tasks.base import check_task
from kd_lightning.tasks.segmentation import SegmentationTask, mean_intersection_over_union

N, C, S = 6, 4, 9


class Data:
    class_names, mean, std = None, None, None

    def __init__(self, target):
        self.target = target

    def sizes(self):
        return {"num_classes": C}

    def example_batch(self):
        return Batch(torch.zeros(2, 1, S, S), self.target[:2])


@pytest.fixture
def masks():
    random = torch.Generator().manual_seed(0)
    target = torch.randint(C, (N, S, S), generator=random)
    student, teacher = (torch.randn(N, C, S, S, generator=random) for _ in range(2))
    return target, student + F.one_hot(target, C).permute(0, 3, 1, 2), teacher


def evaluated(target, student, teacher, task=None):
    evaluator = (task or SegmentationTask()).evaluator()
    for part in torch.arange(N).chunk(3):
        theirs = None if teacher is None else ModelOutput(teacher[part])
        evaluator.update(ModelOutput(student[part]), theirs, Batch(student[part], target[part]))
    return evaluator.compute()


def test_figures_are_those_of_scikit_learn_over_all_pixels(masks):
    target, student, teacher = masks
    found = evaluated(target, student, teacher)
    truth, ours, theirs = (values.flatten().numpy() for values in (target, student.argmax(1), teacher.argmax(1)))
    assert found["miou"] == pytest.approx(jaccard_score(truth, ours, average="macro"))
    assert found["teacher_miou"] == pytest.approx(jaccard_score(truth, theirs, average="macro"))
    assert found["pixel_acc"] == pytest.approx((truth == ours).mean())
    assert found["agreement"] == pytest.approx((ours == theirs).mean())
    assert found["loss_task"] == pytest.approx(F.cross_entropy(student, target).item(), rel=1e-5)
    assert set(found) == {metric.name for metric in SegmentationTask.metrics}


def test_pixels_without_a_label_count_nowhere_but_in_the_agreement(masks):
    target, student, teacher = masks
    hidden = torch.where(torch.rand(target.shape) < 0.4, UNLABELLED, target)
    known = (hidden != UNLABELLED).flatten().numpy()
    found = evaluated(hidden, student, teacher)
    truth, ours = target.flatten().numpy()[known], student.argmax(1).flatten().numpy()[known]
    assert found["miou"] == pytest.approx(jaccard_score(truth, ours, average="macro"))
    assert found["agreement"] == pytest.approx((student.argmax(1) == teacher.argmax(1)).double().mean().item())
    wrong = student.clone()
    wrong.permute(0, 2, 3, 1)[hidden == UNLABELLED] += torch.tensor([9.0, 0, 0, 0])
    task = SegmentationTask()
    assert task.loss(ModelOutput(wrong), hidden) == pytest.approx(float(task.loss(ModelOutput(student), hidden)))
    nothing = torch.full_like(target, UNLABELLED)
    assert float(task.loss(ModelOutput(student), nothing)) == 0
    assert np.isnan(evaluated(nothing, student, None)["miou"])


def test_the_mean_is_over_the_classes_that_occur_by_hand():
    counts = torch.tensor([[3.0, 1, 0], [0, 4, 0], [0, 0, 0]])  # class 2 occurs nowhere
    assert mean_intersection_over_union(counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
    seen = torch.tensor([[3.0, 1, 0], [0, 4, 0], [0, 2, 0]])  # and is never found where it occurs
    assert mean_intersection_over_union(seen) == pytest.approx((3 / 4 + 4 / 7 + 0) / 3)


def test_class_weights_weigh_as_torchs_do(masks):
    target, student, _ = masks
    task = SegmentationTask(class_weights=[0.5, 2.0, 1.0, 0.0])
    expected = F.cross_entropy(student, target, torch.tensor([0.5, 2.0, 1.0, 0.0]))
    assert float(task.loss(ModelOutput(student), target)) == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(UserError, match=r"task\.class_weights must be numbers"):
        SegmentationTask(class_weights=[-1.0, 1.0])


def test_processes_add_up(masks):
    target, student, teacher = masks
    parts = []
    for rows in (slice(0, 2), slice(2, N)):
        evaluator = SegmentationTask().evaluator()
        evaluator.update(ModelOutput(student[rows]), ModelOutput(teacher[rows]), Batch(student[rows], target[rows]))
        parts.append(evaluator)
    sums: list[torch.Tensor] = []
    parts[1].sync(lambda values: sums.append(values) or values)
    given = iter(sums)
    parts[0].sync(lambda values: values + next(given))
    whole = evaluated(target, student, teacher)
    assert parts[0].compute() == pytest.approx(whole)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, C), r"^student: answers with \(4,\) for masks of \(9, 9\) pixels"),
        ((2, C, 3, 3), r"let the network enlarge what it gives"),
        ((2, 3, S, S), r"^student: answers for 3 classes, the data has 4 classes"),
    ],
)
def test_a_model_that_does_not_answer_for_each_pixel_is_one_line(shape, words, masks):
    with pytest.raises(UserError, match=words):
        SegmentationTask().check_output(ModelOutput(torch.zeros(shape)), Data(masks[0]), "student")


def test_labels_of_whole_pictures_are_no_masks():
    with pytest.raises(UserError, match=r"^data: a segmentation takes a class number for each pixel.*data=image_masks"):
        SegmentationTask().check_output(ModelOutput(torch.zeros(2, C)), Data(torch.zeros(2).long()), "student")


def test_masks_of_one_class_are_no_fault_of_the_model(masks):
    class Black(Data):
        def sizes(self):
            return {"num_classes": 1}

    with pytest.raises(UserError, match=r"^data: all masks hold class 0 only \(255 counts as no label\).*mask // 255$"):
        SegmentationTask().check_output(ModelOutput(torch.zeros(2, 2, S, S)), Black(masks[0]), "teacher.model")


def test_a_teacher_that_paints_everything_alike_is_useless(masks):
    task = SegmentationTask()
    check_task(task)
    assert "no better than one class everywhere" in task.useless({"miou": 0.06}, Data(masks[0]))
    assert task.useless({"miou": 0.4}, Data(masks[0])) is None


def test_masks_are_drawn_side_by_side_in_the_same_colours(masks):
    target, _, teacher = masks
    exact = 9 * F.one_hot(target, C).permute(0, 3, 1, 2).float()
    step = Step(Batch(torch.rand(N, 3, S, S), target), ModelOutput(exact), ModelOutput(teacher), Clock(0, 0, 1, 1))
    drawn = np.asarray(SegmentationTask().picture(step, Data(target), 1.0))
    cells = [drawn[26:154, 10 + k * 138 : 138 + k * 138] for k in range(4)]  # picture, truth, teacher, student
    assert (cells[1] == cells[3]).all()
    assert (cells[1] != cells[2]).any()
    assert len(np.unique(cells[1].reshape(-1, 3), axis=0)) == C
    without = np.asarray(
        SegmentationTask().picture(Step(step.batch, step.student, None, step.clock), Data(target), 1.0)
    )
    assert without.shape[1] < drawn.shape[1]


def test_torchvisions_answer_for_masks_is_read_and_its_auxiliary_head_told():
    out = {"out": torch.zeros(1, C, S, S), "aux": torch.ones(1, C, S, S)}
    assert torch.equal(as_model_output(out).logits, out["out"])
    assert unused_heads(out) == ["aux"]
