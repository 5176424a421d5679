"""Deep embedded clustering: its formulas by hand, its clusters, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from kd_lightning.errors import UserError
from kd_lightning.teachers.dec import DeepEmbeddedClustering, assignments, sharpened


@pytest.fixture(scope="module")
def blobs():
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 240)
    return (4 * np.eye(3, 6)[label] + random.normal(size=(240, 6))).astype(np.float32), label


def estimator(**changes) -> DeepEmbeddedClustering:
    return DeepEmbeddedClustering(
        **{
            "n_clusters": 3,
            "hidden": [16],
            "code": 2,
            "pretrain_epochs": 20,
            "epochs": 8,
            "batch_size": 16,
            "lr": 0.01,
            **changes,
        }
    )


def test_assignments_and_targets_by_hand():
    q = assignments(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [1.0]]))
    # 1 / (1 + d^2): sample 0 has 1 and 1/2, sample 1 has 1/5 and 1/2
    expected = np.array([[2 / 3, 1 / 3], [2 / 7, 5 / 7]])
    np.testing.assert_allclose(q.numpy(), expected, rtol=1e-6)
    squared = expected**2 / expected.sum(0)
    np.testing.assert_allclose(sharpened(q).numpy(), squared / squared.sum(1, keepdims=True), rtol=1e-6)


def test_it_finds_the_clusters_and_answers_for_new_samples(blobs):
    rows, label = blobs
    made = estimator().fit(rows[:200])
    found = made.predict_proba(rows[200:])
    assert found.shape == (40, 3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert normalized_mutual_info_score(label[200:], found.argmax(1)) > 0.8


def test_the_second_stage_makes_assignments_surer(blobs):
    rows, _ = blobs
    before, after = (estimator(epochs=n).fit(rows).predict_proba(rows).max(1).mean() for n in (0, 8))
    assert after > before + 0.02


def test_it_is_the_same_each_time_and_leaves_the_generators_alone(blobs):
    rows, _ = blobs
    torch.manual_seed(5)
    first = estimator(pretrain_epochs=2, epochs=1).fit(rows)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    assert (first.weights_ == estimator(pretrain_epochs=2, epochs=1).fit(rows).weights_).all()


def test_one_cluster_is_refused():
    with pytest.raises(UserError, match="n_clusters must be >= 2"):
        DeepEmbeddedClustering(n_clusters=1)
