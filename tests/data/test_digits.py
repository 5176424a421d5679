"""scikit-learn's digits."""

from __future__ import annotations

import torch

from kd_lightning.data.digits import DigitsData


def test_inputs_have_mean_0_and_deviation_1():
    module = DigitsData(val_size=1, train_size=None, batch_size=1)
    images, _ = module.train_data()
    values = module.array(images, torch.zeros(len(images)), "all").gather(torch.arange(len(images)), 0)[0]
    assert values.mean().abs() < 2e-3
    assert (values.std() - 1).abs() < 2e-3


def test_the_test_split_is_balanced_and_fixed():
    images, targets = DigitsData().test_data()
    again, _ = DigitsData(split_seed=9, seed=9, val_size=300).test_data()
    assert torch.equal(images, again)
    assert images.shape == (597, 1, 8, 8)
    assert targets.bincount().tolist() == [59, 60, 59, 61, 60, 60, 60, 60, 58, 60]
    assert targets[:12].tolist() == [3, 5, 1, 4, 6, 9, 7, 0, 2, 8, 3, 1]


def test_attributes_tell_the_models_what_they_need():
    module = DigitsData()
    assert (module.num_classes, module.in_channels, module.image_size, module.in_features) == (10, 1, 8, 64)
    assert module.class_names == list("0123456789")
