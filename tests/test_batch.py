"""What a user's own loader may yield."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.batch import Batch, as_batch

X, Y = torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("given", "inputs", "target"),
    [
        ([X, Y], X, Y),
        ((X, Y, torch.tensor([5, 6])), X, Y),
        ({"x": X, "y": Y}, X, Y),
        ({"a": X, "b": X, "labels": Y}, {"a": X, "b": X}, Y),
        (X, X, torch.tensor([-1, -1])),
        (Batch(X, Y), X, Y),
    ],
)
def test_a_batch_of_any_usual_form_is_taken(given, inputs, target):
    batch = as_batch(given)
    assert repr(batch.inputs) == repr(inputs)
    assert torch.equal(batch.target, target)


@pytest.mark.parametrize("given", [{"a": X}, (X,), "text", 3])
def test_anything_else_is_told(given):
    with pytest.raises(ValueError, match="a batch must be"):
        as_batch(given)
