"""Scores of clusterings against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from kd_lightning.metrics.clustering import (
    CountTable,
    adjusted_rand_index,
    distance_table,
    matched_share,
    normalized_mutual_information,
    silhouettes,
)


def table(first, second) -> torch.Tensor:
    counts = CountTable()
    counts.add(torch.as_tensor(first), torch.as_tensor(second))
    return counts.counts


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    label = random.integers(0, 7, 300)
    cluster = np.where(random.random(300) < 0.6, label, random.integers(0, 5, 300))
    counts = table(cluster, label)
    assert normalized_mutual_information(counts) == pytest.approx(
        sk.normalized_mutual_info_score(label, cluster), abs=1e-12
    )
    assert adjusted_rand_index(counts) == pytest.approx(sk.adjusted_rand_score(label, cluster), abs=1e-12)
    points = torch.from_numpy(random.normal(size=(300, 4)) + label[:, None])
    mine = silhouettes(distance_table(points), torch.from_numpy(cluster))
    np.testing.assert_allclose(mine.numpy(), sk.silhouette_samples(points.numpy(), cluster), atol=1e-9)


def test_the_accuracy_of_a_clustering_by_hand():
    # clusters 0, 1, 2 hold labels {1,1,0}, {0,0}, {2}: matched 0-1, 1-0, 2-2 five of six are right
    assert matched_share(table([0, 0, 0, 1, 1, 2], [1, 1, 0, 0, 0, 2])) == pytest.approx(5 / 6)
    # two clusters may not both be matched to label 0
    assert matched_share(table([0, 0, 1, 1], [0, 0, 0, 0])) == pytest.approx(0.5)


def test_numbers_of_clusters_mean_nothing():
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    counts = table(torch.tensor([2, 2, 0, 0, 1, 1]), label)
    scores = (matched_share(counts), normalized_mutual_information(counts), adjusted_rand_index(counts))
    assert scores == pytest.approx((1.0, 1.0, 1.0))


def test_a_sample_alone_and_a_single_cluster_have_silhouette_zero():
    points = torch.tensor([[0.0], [1.0], [10.0]])
    assert silhouettes(distance_table(points), torch.tensor([0, 0, 0])).tolist() == [0, 0, 0]
    values = silhouettes(distance_table(points), torch.tensor([0, 0, 1])).tolist()
    assert values == pytest.approx([(10 - 1) / 10, (9 - 1) / 9, 0.0])


def test_tables_of_processes_that_saw_other_clusters_add_up():
    first, second = CountTable(), CountTable()
    first.add(torch.tensor([0, 1]), torch.tensor([0, 0]))
    second.add(torch.tensor([3, 3]), torch.tensor([2, 5]))
    shapes = torch.tensor([2.0 + 4, 1 + 6])
    others = {2: shapes}

    def reduce(values: torch.Tensor) -> torch.Tensor:  # the other process's part, as an all-reduce would add it
        if values.numel() == 2:
            return others[2]
        second.grow(*values.shape)
        return values + second.counts

    first.sync(reduce)
    assert first.counts.sum() == 4
    assert [first.counts[0, 0], first.counts[1, 0], first.counts[3, 2], first.counts[3, 5]] == [1, 1, 1, 1]
