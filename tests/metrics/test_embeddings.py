"""Scores of embeddings against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from kd_lightning.metrics.embeddings import (
    dimensions_in_use,
    neighbour_hits,
    neighbours_in_common,
    probe_hits,
)

N, K = 120, 4


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    labels = random.integers(0, K, N)
    return random.normal(size=(N, 6)) + 1.5 * np.eye(K, 6)[labels], labels


def test_neighbours_labels_are_those_of_scikit_learn_leaving_the_sample_out(rows):
    values, labels = rows
    found = neighbour_hits(torch.from_numpy(values), torch.from_numpy(labels), 5)
    for i in range(N):
        others = np.arange(N) != i
        judge = KNeighborsClassifier(5, metric="cosine").fit(values[others], labels[others])
        assert bool(found[i]) == (judge.predict(values[i : i + 1])[0] == labels[i])


def test_the_probe_is_ridge_regression_on_the_other_four_fifths(rows):
    values, labels = rows
    found = probe_hits(torch.from_numpy(values), torch.from_numpy(labels), ridge=0.01)
    for fold in range(5):
        tried = np.arange(N) % 5 == fold
        mean, std = values[~tried].mean(0), values[~tried].std(0, ddof=1)
        wanted = 2 * np.eye(K)[labels[~tried]] - 1
        judge = Ridge(alpha=0.01 * (~tried).sum()).fit((values[~tried] - mean) / std, wanted)
        right = judge.predict((values[tried] - mean) / std).argmax(1) == labels[tried]
        assert found[torch.from_numpy(tried)].tolist() == right.tolist()
    assert found.double().mean() > 0.5


def test_neighbours_in_common_by_another_route(rows):
    values, _ = rows
    other = values + np.random.default_rng(1).normal(size=values.shape)
    found = neighbours_in_common(torch.from_numpy(values), torch.from_numpy(other), 5)
    sets = [NearestNeighbors(n_neighbors=6, metric="cosine").fit(v).kneighbors(v)[1][:, 1:] for v in (values, other)]
    expected = [len(set(a) & set(b)) / 5 for a, b in zip(*sets, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected)
    assert neighbours_in_common(torch.from_numpy(values), torch.from_numpy(3 * values), 5).mean() == 1


def test_dimensions_in_use():
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 7)
    assert dimensions_in_use(line) == pytest.approx(1.0)
    assert dimensions_in_use(torch.ones(50, 7)) == 1.0
    square = torch.cat([torch.eye(4), -torch.eye(4)])
    assert dimensions_in_use(square) == pytest.approx(4.0)
