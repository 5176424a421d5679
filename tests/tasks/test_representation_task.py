"""Representations: figures of the whole set, nothing to learn from labels, and a checkpoint that no label chooses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock, Step
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.embeddings import few_label_probe, neighbour_hits, neighbours_in_common, probe_hits
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import check_task
from kd_lightning.tasks.representation import RepresentationTask

N = 60


@pytest.fixture
def rows():
    random = torch.Generator().manual_seed(0)
    label = torch.randint(3, (N,), generator=random)
    student = torch.randn(N, 4, generator=random) + 2 * torch.eye(3, 4)[label]
    return student, student @ torch.randn(4, 6, generator=random), label


def evaluator_of(student, teacher, target, task=None, batches=3):
    evaluator = (task or RepresentationTask()).evaluator()
    for part in torch.arange(len(student)).chunk(batches):
        theirs = None if teacher is None else ModelOutput(teacher[part])
        evaluator.update(ModelOutput(student[part]), theirs, Batch(student[part], target[part]))
    return evaluator


def test_figures_are_those_of_all_batches_together(rows):
    student, teacher, label = rows
    found = evaluator_of(student, teacher, label).compute()
    assert found["knn"] == pytest.approx(neighbour_hits(student, label, 10).double().mean().item())
    assert found["teacher_probe"] == pytest.approx(probe_hits(teacher, label).double().mean().item())
    assert found["agreement"] == pytest.approx(neighbours_in_common(student, teacher, 10).mean().item())
    assert set(found) == {metric.name for metric in RepresentationTask.metrics}


def test_only_the_first_samples_are_measured(rows):
    student, _, label = rows
    found = evaluator_of(student, None, label, RepresentationTask(samples=25)).compute()
    assert found["measured"] == 25
    assert found["knn"] == pytest.approx(neighbour_hits(student[:25], label[:25], 10).double().mean().item())


def test_a_probe_of_few_labels_is_measured_where_there_are_more(rows):
    student, teacher, label = rows
    found = evaluator_of(student, teacher, label, RepresentationTask(probe_labels=20)).compute()
    assert found["teacher_probe"] == pytest.approx(few_label_probe(teacher, label, 20))
    assert "probe" not in evaluator_of(student, None, label, RepresentationTask(probe_labels=N)).compute()
    with pytest.raises(UserError, match=r"task\.probe_labels must be >= 10, got 5"):
        RepresentationTask(probe_labels=5)


def test_without_labels_there_are_neighbours_in_common(rows):
    student, teacher, label = rows
    found = evaluator_of(student, teacher, torch.full_like(label, UNLABELLED)).compute()
    assert set(found) == {"measured", "dimensions", "teacher_dimensions", "agreement"}


def test_figures_of_processes_are_weighed_by_their_samples(rows):
    student, teacher, label = rows
    parts = [evaluator_of(student[s], teacher[s], label[s]) for s in (slice(0, 20), slice(20, N))]
    alone = [part.compute() for part in parts]
    sums = []
    parts[1].sync(lambda values: sums.append(values) or values)
    parts[0].sync(lambda values: values + sums[0])
    found = parts[0].compute()
    assert found["knn"] == pytest.approx((20 * alone[0]["knn"] + 40 * alone[1]["knn"]) / 60)


def test_the_checkpoint_is_chosen_without_a_label_and_is_the_last_one_without_a_teacher():
    declared = Declared.of_task(RepresentationTask())
    assert declared.chooser({"knn": 0.1, "agreement": 0.5, "measured": 9}).name == "agreement"
    assert declared.chooser({"knn": 0.1, "measured": 9}).name == "measured"
    check_task(RepresentationTask())


def test_the_loss_is_nothing_and_embeddings_that_collapsed_are_useless():
    task = RepresentationTask()
    assert float(task.loss(ModelOutput(torch.ones(3, 2)), None)) == 0
    assert "have collapsed" in task.useless({"dimensions": 1.1}, None)
    assert task.useless({"dimensions": 9.0}, None) is None
    with pytest.raises(UserError, match=r"^student: answers with \(5, 2, 2\) .* \(student=backbone"):
        task.check_output(ModelOutput(torch.zeros(2, 5, 2, 2)), None, "student")
    with pytest.raises(UserError, match=r"task\.samples must be >= 20"):
        RepresentationTask(samples=3)


def test_what_is_not_finite_is_told_by_its_figures(rows):
    student, _, label = rows
    student[3, 1] = math.inf
    assert math.isnan(evaluator_of(student, None, label).compute()["knn"])


def test_the_picture_has_a_panel_a_model_coloured_by_label(rows):
    student, teacher, label = rows
    step = Step(Batch(student, label), ModelOutput(student), ModelOutput(teacher), Clock(0, 0, 1, 1))
    both = np.asarray(RepresentationTask().picture(step, None, 1.0))
    alone = np.asarray(RepresentationTask().picture(Step(step.batch, step.student, None, step.clock), None, 1.0))
    assert both.shape[1] > alone.shape[1]
    assert len(np.unique(alone[40:-20].reshape(-1, 3), axis=0)) >= 5  # paper, card, three classes
