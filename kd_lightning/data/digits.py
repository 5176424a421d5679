"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: nothing to download.

The test half of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI Machine Learning Repository):
1,797 images, pixels 0..16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.split import stratified_order

TEST_SIZE, TEST_SEED = 597, 1797  # fixed: 1,200 samples remain for training and validation whatever the configuration


class DigitsData(DistillationDataModule):
    """scikit-learn's digits: (N, 1, 8, 8), 10 classes; 597 test samples that no setting changes."""

    num_classes = 10
    class_names = [str(digit) for digit in range(10)]
    in_channels = 1
    image_size = 8
    scale = 16.0
    mean = [0.3066]  # of the 1,200 samples that are not test, pixels / 16
    std = [0.3773]
    default_augment = {"crop_padding": 1, "flip": False}

    def train_data(self) -> tuple[Tensor, Tensor]:
        """The 1,200 samples that training and validation are chosen from."""
        images, targets, order = _digits()
        return images[order[TEST_SIZE:]], targets[order[TEST_SIZE:]]

    def test_data(self) -> tuple[Tensor, Tensor]:
        """The 597 test samples."""
        images, targets, order = _digits()
        return images[order[:TEST_SIZE]], targets[order[:TEST_SIZE]]


def _digits() -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 1, 8, 8) uint8, targets (N,), and the fixed order whose beginning is the test split."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    pixels, targets = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 8, 8)
    targets = torch.from_numpy(targets).long()
    return images, targets, stratified_order(targets, TEST_SEED)
