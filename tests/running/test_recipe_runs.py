"""Published recipes run as they are, and what they bring (LAMB, stochastic depth, mixing, layer-wise rates) resumes bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import made_up_data
import pytest
from processes import SMALL, lines, run, start, weights

from kd_lightning.cli._hydra_main import config_directory

RECIPES = sorted(path.stem for path in config_directory().glob("recipe/*.yaml"))
DATA = (
    "data=fashion_mnist", "data.train_size=320", "data.val_size=100", "data.batch_size=16", "data.num_threads=1",
    *(override for override in SMALL if override.startswith(("teacher", "pictures", "trainer.acc"))),
    "student=small_vit", "student.patch=7", "student.width=8", "student.heads=2", "student.drop_path=0.4",
    "log_every_n_steps=1", "baseline=false",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made_up_data.write_fashion_mnist(folder, train=500)
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_a_student_as_it_is(recipe, tmp_path, data_dir):
    done = run(tmp_path, f"recipe={recipe}", *DATA, "debug=fast", "run_dir=run", KD_DATA_DIR=str(data_dir))
    assert done.code == 0, done.text
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"


def test_a_run_by_a_recipe_that_was_stopped_ends_where_an_undisturbed_one_ends(tmp_path, data_dir):
    words = (
        "recipe=vanilla_a2",
        *DATA,
        "trainer.max_epochs=4",
        "optimizer.layer_decay=0.7",
        "checkpoint.every_n_steps=7",
    )
    whole = run(tmp_path, *words, "run_dir=whole", KD_DATA_DIR=str(data_dir))
    assert whole.code == 0, whole.text
    command = start(tmp_path, *words, "run_dir=stopped", KD_DATA_DIR=str(data_dir))
    command.wait_for(lambda: (tmp_path / "stopped/metrics.jsonl").is_file() and len(lines(tmp_path / "stopped")) > 25)
    command.kill(signal.SIGINT)
    assert command.wait().code == 130
    assert json.loads((tmp_path / "stopped" / "result.json").read_text())["cost"]["steps"] < 80
    again = run(tmp_path, *words, "run_dir=stopped", KD_DATA_DIR=str(data_dir))
    assert again.code == 0, again.text
    assert "continues after step" in again.text
    for which in ("best", "last"):
        assert weights(tmp_path / "stopped", which) == weights(tmp_path / "whole", which)
