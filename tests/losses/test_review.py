from __future__ import annotations

import pytest
import torch
from golden_cases import array, assert_equals_reference, on_features

from kd_lightning.errors import UserError
from kd_lightning.losses.review import ReviewLoss, hierarchical_difference
from kd_lightning.outputs import ModelOutput

TAPS = ["a", "b", "c"]


def prepared(student, teacher, inner=None):
    term = ReviewLoss(list(student), inner_channels=inner)
    logits = torch.zeros(2, 2)
    term.prepare(ModelOutput(logits, student), ModelOutput(logits, teacher))
    return term


def test_differences_at_several_sizes_equal_the_reference():
    def loss(*maps):
        return sum(hierarchical_difference(ours, theirs) for ours, theirs in zip(maps[:3], maps[3:], strict=True))

    assert_equals_reference("reviewkd", "mdistiller_hcl", loss)


def test_fused_loss_and_gradient_equal_the_reference():
    features = [{tap: array("reviewkd", f"in/{tap}_{role}") for tap in TAPS} for role in "st"]
    term = prepared(*features).double()
    for k, fusion in enumerate(term.fusions):
        fusion.load_state_dict({name: array("reviewkd", f"param/abf{k}.{name}") for name in fusion.state_dict()})
    assert_equals_reference("reviewkd", "torchdistill_abf_hcl", on_features(term, *TAPS))


def test_shapes_are_inferred_and_vectors_are_maps_of_one_position():
    student = {"a": torch.randn(2, 3, 8, 8), "b": torch.randn(2, 4, 5, 3), "c": torch.randn(2, 6)}
    teacher = {"a": torch.randn(2, 7, 6, 6), "b": torch.randn(2, 2, 4, 4), "c": torch.randn(2, 9)}
    term = prepared(student, teacher)
    loss = on_features(term, *TAPS)(*student.values(), *teacher.values())
    loss.backward()
    assert loss > 0
    assert all(parameter.grad is not None for parameter in term.parameters())
    assert [fusion.conv2[0].out_channels for fusion in term.fusions] == [9, 2, 7]
    assert term.fusions[0].conv1[0].out_channels == 6


def test_misuse_is_named():
    with pytest.raises(UserError, match="at least one tap"):
        ReviewLoss([])
    with pytest.raises(UserError, match="tap 'a': knowledge review needs maps"):
        prepared({"a": torch.randn(2, 3, 4)}, {"a": torch.randn(2, 3, 4)})
    with pytest.raises(RuntimeError, match="prepare"):
        on_features(ReviewLoss(["a"]), "a")(torch.randn(2, 3), torch.randn(2, 3))
