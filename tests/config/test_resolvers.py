"""What configs compute: defaults, what is left of a weight, the direction of a search."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from kd_lightning.config import resolvers  # noqa: F401 (registers them)

REGRESSION = {
    "_target_": "kd_lightning.tasks.collection.CollectionTask",
    "name": "regression",
    "monitor": "rmse",
    "loss": {"_target_": "torch.nn.MSELoss"},
    "metrics": {"rmse": {"_target_": "torchmetrics.MeanSquaredError", "squared": False}},
}
CLASSIFICATION = {"_target_": "kd_lightning.tasks.classification.ClassificationTask"}


@pytest.mark.parametrize(("task", "direction"), [(CLASSIFICATION, "maximize"), (REGRESSION, "minimize")])
def test_a_search_goes_where_the_tasks_metric_is_better(task, direction):
    config = OmegaConf.create({"task": task, "direction": "${kd_direction:${task}}"})
    assert config.direction == direction


@pytest.mark.parametrize(("share", "rest"), [(0.9, 0.1), (0.1, 0.9), (1, 0.0), (0.3, 0.7)])
def test_what_is_left_of_one_has_no_digits_of_a_binary_fraction(share, rest):
    assert OmegaConf.create({"kd": share, "task": "${kd_rest:${kd}}"}).task == rest
