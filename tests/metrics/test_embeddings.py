"""Scores of embeddings against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from kd_lightning.metrics.embeddings import (
    RIDGES,
    Probe,
    dimensions_in_use,
    few_label_probe,
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


def of_unit_length(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_the_probe_is_ridge_regression_on_the_other_four_fifths(rows):
    values, labels = rows
    found = probe_hits(torch.from_numpy(values), torch.from_numpy(labels), ridge=0.01)
    values = of_unit_length(values)
    for fold in range(5):
        tried = np.arange(N) % 5 == fold
        judge = Ridge(alpha=0.01 * (~tried).sum()).fit(values[~tried], 2 * np.eye(K)[labels[~tried]] - 1)
        right = judge.predict(values[tried]).argmax(1) == labels[tried]
        assert found[torch.from_numpy(tried)].tolist() == right.tolist()
    assert found.double().mean() > 0.5


@pytest.mark.parametrize("width", [3, 40, 90])
def test_the_penalty_is_the_best_for_samples_left_out_as_scikit_learn_finds_it(width):
    random = np.random.default_rng(width)
    labels = random.integers(0, K, 60)
    values = random.normal(size=(60, width)) + np.eye(K, width)[labels]
    judge = RidgeCV(alphas=[60 * ridge for ridge in RIDGES]).fit(of_unit_length(values), 2 * np.eye(K)[labels] - 1)
    probe = Probe(torch.from_numpy(values), torch.from_numpy(labels), K)
    assert probe.ridge * 60 == pytest.approx(judge.alpha_)
    assert probe(torch.from_numpy(values)).tolist() == judge.predict(of_unit_length(values)).argmax(1).tolist()


def test_many_dimensions_and_few_samples_do_not_spoil_the_probe():
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, K, N))
    values = torch.from_numpy(random.normal(size=(N, 96))) + 2 * torch.eye(K, 96)[labels]  # as many as are fitted
    assert probe_hits(values, labels).double().mean() > probe_hits(values, labels, ridge=1e-6).double().mean() + 0.1


def test_a_probe_of_few_labels_is_fitted_on_each_part_of_them_and_tried_on_the_rest(rows):
    values, labels = (torch.from_numpy(part) for part in rows)
    shares = []
    for part in range(3):  # 120 samples, 40 for each
        rest = torch.arange(N) % 3 != part
        probe = Probe(values[~rest], labels[~rest], K)
        shares.append((probe(values[rest]) == labels[rest]).double().mean().item())
    assert few_label_probe(values, labels, 40) == pytest.approx(np.mean(shares))


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
