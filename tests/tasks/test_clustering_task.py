"""Clustering: metrics without labels, a loss that looks at none, a picture of two divisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import check_task
from kd_lightning.tasks.clustering import ClusteringTask
from kd_lightning.tasks.clustering_picture import cluster_picture, matched_numbers

N, K = 90, 4


@pytest.fixture
def samples():
    random = torch.Generator().manual_seed(0)
    label = torch.randint(3, (N,), generator=random)
    inputs = torch.randn(N, 1, 2, 3, generator=random) + 3 * label[:, None, None, None]
    return inputs, label


def scores(seed: int) -> torch.Tensor:
    return torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def evaluated(inputs, target, student, teacher, batches=3) -> dict[str, float]:
    evaluator = ClusteringTask().evaluator()
    for part in torch.arange(len(inputs)).chunk(batches):
        theirs = None if teacher is None else ModelOutput(teacher[part])
        evaluator.update(ModelOutput(student[part]), theirs, Batch(inputs[part], target[part]))
    return evaluator.compute()


def test_every_figure_is_that_of_scikit_learn_over_the_whole_set(samples):
    inputs, label = samples
    student, teacher = scores(1), scores(2)
    found = evaluated(inputs, label, student, teacher)
    mine, theirs, rows = student.argmax(1), teacher.argmax(1), inputs.flatten(1)
    for prefix, groups in (("", mine), ("teacher_", theirs)):
        assert found[f"{prefix}nmi"] == pytest.approx(sk.normalized_mutual_info_score(label, groups))
        assert found[f"{prefix}ari"] == pytest.approx(sk.adjusted_rand_score(label, groups))
        assert found[f"{prefix}silhouette"] == pytest.approx(sk.silhouette_score(rows, groups), abs=1e-4)
        assert found[f"{prefix}largest"] == pytest.approx(groups.bincount().max().item() / N)
    assert found["nmi_teacher"] == pytest.approx(sk.normalized_mutual_info_score(mine, theirs))
    assert found["loss_task"] == pytest.approx(float(ClusteringTask().loss(ModelOutput(student), label)), abs=1e-6)
    assert set(found) == {metric.name for metric in ClusteringTask.metrics}


def test_without_labels_and_teacher_there_are_the_figures_that_need_none(samples):
    inputs, label = samples
    found = evaluated(inputs, torch.full_like(label, UNLABELLED), scores(1), None)
    assert set(found) == {"largest", "loss_task", "silhouette"}


def test_half_of_the_labels_score_half_of_the_samples(samples):
    inputs, label = samples
    half = torch.where(torch.arange(N) % 2 == 0, label, UNLABELLED)
    found = evaluated(inputs, half, scores(1), scores(2))
    groups = scores(1).argmax(1)[::2]
    assert found["nmi"] == pytest.approx(sk.normalized_mutual_info_score(label[::2], groups))


def test_the_loss_is_minus_the_mutual_information():
    task = ClusteringTask()
    sure = 100 * torch.eye(K).repeat(5, 1)
    assert float(task.loss(ModelOutput(sure), None)) == pytest.approx(-math.log(K), abs=1e-6)
    assert float(task.loss(ModelOutput(torch.zeros(8, K)), None)) == pytest.approx(0.0, abs=1e-6)
    one = torch.zeros(8, K).index_fill(1, torch.tensor([0]), 100.0)
    assert float(task.loss(ModelOutput(one), None)) == pytest.approx(0.0, abs=1e-6)
    logits = scores(3).double().requires_grad_()
    torch.autograd.gradcheck(lambda z: task.loss(ModelOutput(z), None), logits)


def test_the_checkpoint_is_chosen_without_a_label():
    declared = Declared.of_task(ClusteringTask())
    assert declared.chooser({"nmi": 0.1, "agreement": 0.5, "loss_task": -1}).name == "agreement"
    assert declared.chooser({"nmi": 0.1, "loss_task": -1}).name == "loss_task"
    check_task(ClusteringTask())
    check_task(ClusteringTask(silhouette_samples=0))
    with pytest.raises(UserError, match=r"task\.clusters must be >= 2"):
        ClusteringTask(clusters=1)


def test_a_teacher_with_everything_in_one_cluster_is_called_useless():
    task = ClusteringTask()
    assert "97 % of the samples are in one cluster" in task.useless({"nmi": 0.0, "largest": 0.97}, None)
    assert task.useless({"nmi": 0.4, "largest": 0.3}, None) is None


def test_a_prediction_is_each_clusters_share():
    shares = ClusteringTask().predict(ModelOutput(scores(1)))
    assert torch.allclose(shares.sum(1), torch.ones(N))
    assert torch.equal(shares.argmax(1), scores(1).argmax(1))


def test_one_score_a_sample_is_refused():
    with pytest.raises(UserError, match=r"^student: answers with .* at least two clusters: set num_classes"):
        ClusteringTask().check_output(ModelOutput(torch.zeros(4, 1)), None, "student")


def test_the_picture_shows_equal_divisions_in_equal_colours_whatever_their_numbers():
    random = torch.Generator().manual_seed(0)
    points, student = torch.randn(200, 5, generator=random), torch.randn(200, 4, generator=random)
    picture = np.asarray(cluster_picture(points, student, student[:, [2, 0, 3, 1]]))
    width = (picture.shape[1] - 20) // 2
    left, right = picture[40:-20, 20 : 20 + width - 20], picture[40:-20, 20 + width : 2 * width]
    assert (left == right).all()
    assert len(np.unique(left.reshape(-1, 3), axis=0)) > 4
    alone = np.asarray(cluster_picture(points, student, None))
    assert alone.shape[1] < picture.shape[1]


def test_matched_numbers_keep_who_is_together():
    groups, like = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([2, 2, 0, 0, 0])
    assert matched_numbers(groups, like).tolist() == [2, 2, 0, 0, 1]
