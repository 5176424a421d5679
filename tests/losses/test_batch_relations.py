"""Losses on relations between the samples of a batch, or between channels: sizes of student and teacher may differ."""

from __future__ import annotations

import pytest
import torch
from golden_cases import assert_equals_reference, on_features

from kd_lightning.errors import UserError
from kd_lightning.losses.correlation_congruence import CorrelationCongruenceLoss
from kd_lightning.losses.neuron_selectivity import NeuronSelectivityLoss
from kd_lightning.losses.pkt import NeighbourhoodLoss
from kd_lightning.losses.relational import AngleLoss, DistanceLoss
from kd_lightning.losses.similarity import SimilarityLoss

ON_VECTORS = {
    "similarity": SimilarityLoss(["x"]),
    "distance": DistanceLoss("x"),
    "angle": AngleLoss("x"),
    "neighbourhood": NeighbourhoodLoss("x"),
    "correlation": CorrelationCongruenceLoss("x"),
}


def test_similarity_equals_the_reference_summed_over_taps():
    assert_equals_reference("sp", "repdistiller_two", on_features(SimilarityLoss(["one", "two"]), "one", "two"))


def test_a_zero_feature_has_a_finite_gradient():
    features = torch.randn(5, 4)
    features[2] = 0
    for name, term in ON_VECTORS.items():
        leaf = features.clone().requires_grad_()
        on_features(term, "x")(leaf, torch.randn(5, 7)).backward()
        assert torch.isfinite(leaf.grad).all(), name


def test_neuron_selectivity_equals_the_reference():
    assert_equals_reference("nst", "repdistiller", on_features(NeuronSelectivityLoss(["one", "two"]), "one", "two"))
    assert_equals_reference("nst", "repdistiller_hw_mismatch", on_features(NeuronSelectivityLoss(["one"]), "one"))


@pytest.mark.parametrize("name", ON_VECTORS)
def test_a_rotated_and_scaled_embedding_costs_nothing_and_any_dimensions_fit(name):
    term = on_features(ON_VECTORS[name], "x")
    features = torch.randn(6, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    assert term(3 * features @ rotation, features).abs() < 1e-7
    assert term(torch.randn(6, 9, dtype=torch.float64), features) > 1e-6


@pytest.mark.parametrize("name", ON_VECTORS)
def test_a_batch_of_one_is_finite(name):
    leaf = torch.randn(1, 4, requires_grad=True)
    loss = on_features(ON_VECTORS[name], "x")(leaf, torch.randn(1, 7))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(leaf.grad).all()


def test_products_stay_in_float32_under_autocast():
    features, hints = torch.randn(8, 64), torch.randn(8, 32)
    for name, term in ON_VECTORS.items():
        expected = on_features(term, "x")(features, hints)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(on_features(term, "x")(features, hints), expected, msg=name)


def test_options_out_of_range_are_named():
    with pytest.raises(UserError, match="gamma"):
        CorrelationCongruenceLoss(gamma=0)
    with pytest.raises(UserError, match="order"):
        CorrelationCongruenceLoss(order=0)
    for kind in (SimilarityLoss, NeuronSelectivityLoss):
        with pytest.raises(UserError, match="at least one tap"):
            kind([])
