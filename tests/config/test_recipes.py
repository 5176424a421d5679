"""An error about a key that a recipe says names the recipe and what to do; one about anything else does not."""

from __future__ import annotations

import pytest

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli.train import check_job
from kd_lightning.errors import UserError


def line_of(capsys, *argv: str, later: str = "") -> str:
    """The line with which a command ends: that of the check, or ``later`` in its work."""

    def work(_):
        raise UserError(later or "nothing was wrong")

    assert run_hydra(work, "train", [*argv, "hydra.output_subdir=null"], check=check_job) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["recipe=patient", "method=dkd"],
         "recipe=patient sets method.weights.kd for method=kd: leave out recipe=patient, or method=dkd"),
        (["recipe=patient", "experiment=bikeshare"], "recipe=patient sets method=kd: leave out recipe=patient"),
        (["recipe=deit", "experiment=diabetes"], "recipe=deit sets task.label_smoothing: leave out recipe=deit"),
        (["recipe=vanilla_a2", "scheduler=one_cycle"],
         "recipe=vanilla_a2 sets scheduler.warmup for scheduler=cosine: leave out recipe=vanilla_a2, or scheduler=one_cycle"),
    ],
)  # fmt: skip
def test_what_a_recipe_says_and_the_rest_cannot_take_names_the_recipe(argv, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = line_of(capsys, *argv)
    assert line.endswith(f"; {told}")
    assert "leaves out what the file says" not in line


def test_what_is_only_found_out_later_names_it_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = line_of(capsys, "recipe=patient", later="data.augment.mixup: these are no pictures: leave it out")
    assert line.endswith("; recipe=patient sets data.augment.mixup: leave out recipe=patient")


@pytest.mark.parametrize(
    ("argv", "later"),
    [
        (["recipe=patient", "optimizer.lr=-1"], ""),
        (["recipe=patient", "method.temprature=2"], ""),
        (["recipe=patient", "data.augment.mixup=0.3"], "data.augment.mixup: these are no pictures: leave it out"),
        (["recipe=patient"], "data.root: there is no such directory"),
        (["method=dkd", "data.augment.mixup=0.2"], ""),
    ],
)
def test_what_the_user_said_or_nobody_is_not_the_recipes(argv, later, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "recipe=" not in line_of(capsys, *argv, later=later)
