"""The class of a sample: where there is one, and where there is none to speak of."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled
from kd_lightning.losses.dkd import TrueClassLoss
from kd_lightning.losses.improved_kl import LogitDifferenceLoss
from kd_lightning.losses.multi_level import BatchCorrelationLoss, ClassCorrelationLoss
from kd_lightning.losses.streamlined import DirectionLoss
from kd_lightning.losses.wsld import WeightedSoftLabelLoss
from kd_lightning.outputs import ModelOutput


def test_labels_are_numbers_or_rows_of_probabilities():
    assert class_numbers(torch.tensor([2, -1])).tolist() == [2, -1]
    assert class_numbers(torch.tensor([[0.2, 0.8], [0.9, 0.1]])).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 4)])
def test_a_class_in_each_position_is_refused_in_a_line_that_says_what_does(shape):
    target = torch.zeros(shape, dtype=torch.long)
    for used in (class_numbers, lambda target: mean_over_labelled(torch.zeros(2), target)):
        with pytest.raises(UserError, match=r"one class of a sample.*method=kd"):
            used(target)


@pytest.mark.parametrize("loss", [TrueClassLoss(), WeightedSoftLabelLoss()])
def test_so_are_dense_answers_by_losses_that_look_at_the_label(loss):
    dense = ModelOutput(torch.randn(2, 3, 4, 4, requires_grad=True))
    with pytest.raises(UserError, match="one class of a sample"):
        loss(dense, ModelOutput(torch.randn(2, 3, 4, 4)), torch.zeros(2, 4, 4, dtype=torch.long))


@pytest.mark.parametrize(
    "loss", [ClassCorrelationLoss(), BatchCorrelationLoss(), DirectionLoss(), LogitDifferenceLoss()]
)
def test_and_by_losses_that_compare_samples_or_classes_with_each_other(loss):
    dense = ModelOutput(
        torch.randn(2, 4, 4, 4, requires_grad=True)
    )  # as many classes as rows: nothing else would say so
    with pytest.raises(UserError, match=r"\(2, 4, 4, 4\), one for each position.*method=kd"):
        loss(dense, ModelOutput(torch.randn(2, 4, 4, 4)), torch.zeros(2, 4, 4, dtype=torch.long))
