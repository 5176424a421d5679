"""Recipes have the last word over a data set and an experiment, the command line over a recipe."""

from __future__ import annotations

import pytest

from kd_lightning.cli._hydra_main import config_directory, run_hydra
from kd_lightning.cli.train import check_job

RECIPES = sorted(path.stem for path in config_directory().glob("recipe/*.yaml"))


def composed(*overrides: str):
    jobs = []
    assert run_hydra(jobs.append, "train", [*overrides, "hydra.output_subdir=null"], check=check_job) == 0
    return jobs[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_method_augmentation_optimizer_and_length_after_an_experiment(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = composed(f"recipe={recipe}", "data=fashion_mnist")
    after = composed(f"recipe={recipe}", "experiment=fashion_mnist_2000_labels")
    for key in ("method", "optimizer", "scheduler"):
        assert after[key] == alone[key]
    assert after.trainer.max_epochs == alone.trainer.max_epochs >= 300
    assert after.data.augment.mixup == alone.data.augment.mixup > 0
    assert after.name == "fashion_mnist_2000"


def test_the_command_line_has_the_last_word_over_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = composed("recipe=patient", "trainer.max_epochs=7", "data.augment.mixup=0.2", "method.temperature=5")
    assert (job.trainer.max_epochs, job.data.augment.mixup, job.method.temperature) == (7, 0.2, 5)
    assert dict(job.method.weights) == {"task": 0.0, "kd": 1.0}
