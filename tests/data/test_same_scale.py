"""Validation and test inputs of another unit or normalisation are told; those that were made alike are not."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from kd_lightning.data.inputs import Inputs
from kd_lightning.data.items import ItemForm
from kd_lightning.data.same_scale import other_scale

PIXELS = torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(0)) ** 4
TARGETS = torch.arange(200) % 3
FORM = ItemForm(None, None)


def told(test, train=PIXELS):
    sets = [TensorDataset(x, TARGETS) for x in (test, train)]
    return other_scale("data.test", *sets, FORM, Inputs(train[:1]))


@pytest.mark.parametrize("test", [PIXELS.flip(0), 0.3 * PIXELS, PIXELS + 0.5, (PIXELS > 0.5).float()])
def test_what_was_made_alike_is_told_nothing(test):
    assert told(test) is None
    assert told(PIXELS - 0.5, PIXELS.flip(0) - 0.5) is None


@pytest.mark.parametrize("test", [255 * PIXELS, PIXELS / 255])
def test_another_unit_is_told_with_both_sizes(test):
    assert told(test).startswith("data.test: nine of ten input values are within ")


def test_another_normalisation_is_told_by_its_negative_values():
    normalised = (PIXELS - PIXELS.mean()) / PIXELS.std()
    assert "of the input values are below 0, 0% of those of data.train" in told(normalised)
    assert "0% of the input values are below 0" in told(PIXELS, normalised)


def test_class_numbers_and_several_inputs_have_no_scale():
    assert other_scale("data.test", *[TensorDataset(TARGETS, TARGETS)] * 2, FORM, Inputs(TARGETS[:1], "int64")) is None
