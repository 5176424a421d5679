"""The line about the data that every start begins with."""

from __future__ import annotations

import made_up_data

from kd_lightning.data.fashion_scenes import FashionScenesData
from kd_lightning.data.summary import summary_line


def test_rows_of_yes_and_no_are_no_class_numbers(tmp_path):
    made_up_data.write_fashion_mnist(tmp_path)
    settings = {"root": str(tmp_path), "existing": [], "scenes": 14, "test_scenes": 2, "val_size": 2, "batch_size": 4}
    data = FashionScenesData(target="presence", **settings)
    data.setup("fit")
    targets = data.train_targets()
    told = summary_line(data)
    assert f"10 classes, each 0 or 1, {float(targets.float().mean()):.0%} above 0" in told
    assert "none of class" not in told
    targets[:, 3] = 0
    data.train_views_dataset.targets[:, 3] = 0
    assert "never 1: class " in summary_line(data)
    masks = FashionScenesData(**settings)
    masks.setup("fit")
    assert "11 classes, labels of 64 x 64 0 to " in summary_line(masks)
