"""A saved configuration is run again as it was, or with changes, in a directory of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.config.hydra_files import hydra_files
from kd_lightning.errors import UserError
from kd_lightning.runs.latest import latest
from kd_lightning.sweeps.from_hydra import spec_from_hydra


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def composed(*argv: str, code: int = 0):
    """The one job of a command line as a RunSpec, and its configuration; its .hydra is written."""
    seen = []

    def work(cfg):
        spec = spec_from_hydra(cfg)
        for name, text in hydra_files(cfg, HydraConfig.instance().cfg).items():
            (spec.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (spec.run_dir / name).write_text(text)
        seen.append((spec, cfg))

    assert run_hydra(work, "train", argv) == code
    return seen[0] if seen else None


@pytest.mark.parametrize("again", [["rerun=one"], ["--config-path", "one/.hydra"]])
def test_the_same_again_is_the_same_run_in_another_directory(again, folder):
    first, _ = composed("data=fashion_mnist", "method=dkd", "method.temperature=2", "seed=3", "run_dir=one")
    second, cfg = composed(*again)
    assert second.fingerprint == first.fingerprint
    assert second.run_dir != first.run_dir
    assert second.run_dir.parent == folder / "outputs/fashion_mnist"
    assert cfg.name == "fashion_mnist"


def test_a_value_that_is_changed_reaches_what_refers_to_it(folder):
    composed("method=kd", "method.temperature=2", "run_dir=one")
    _, cfg = composed("rerun=one", "method.temperature=8", "run_dir=two")
    assert (cfg.method.temperature, cfg.method.terms.kd.temperature) == (8, 8)


def test_a_group_that_is_chosen_anew_takes_the_place_of_what_was_saved(folder):
    composed("method=kd", "optimizer.lr=0.03", "run_dir=one")
    spec, cfg = composed("rerun=one", "method=fitnet", "run_dir=two")
    assert list(cfg.method.terms) == ["hint"]
    assert cfg.optimizer.lr == 0.03
    third, _ = composed("rerun=two", "run_dir=three")
    assert third.fingerprint == spec.fingerprint


def test_a_saved_configuration_can_be_swept(folder):
    composed("method=kd", "run_dir=one")
    seen = []
    argv = ["rerun=one", "-m", "seed=0,1", "hydra/launcher=basic", "sweep_dir=sweep"]
    assert run_hydra(lambda cfg: seen.append(cfg.seed), "train", argv) == 0
    assert seen == [0, 1]


def test_a_directory_without_a_run_is_named(folder, capsys):
    composed("rerun=nothing", code=2)
    assert capsys.readouterr().err == "error: rerun=nothing: holds neither .hydra/config.yaml nor result.json\n"


def test_the_latest_run_and_sweep_need_no_name(folder):
    with pytest.raises(UserError, match="there is no run in outputs yet"):
        latest("run")
    for number, name in enumerate(("digits/a", "digits/sweep/s0", "digits/b")):
        file = folder / "outputs" / name / ".hydra/config.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("")
        os.utime(file, (number, number))
    (folder / "outputs/digits/sweep/sweep.json").write_text("{}")
    assert latest("run") == Path("outputs/digits/b")
    assert latest("sweep") == Path("outputs/digits/sweep")
    _, cfg = composed("run_dir=latest")
    assert cfg.run_dir == "outputs/digits/b"


def test_hydras_change_of_directory_is_refused_in_one_line(folder, capsys):
    composed("hydra.job.chdir=true", code=2)
    assert "relative paths are those of the directory that you start in" in capsys.readouterr().err
    assert OmegaConf.is_config(composed("run_dir=x")[1])


def test_what_holds_no_student_is_no_run(folder, capsys):
    (folder / "teacher").mkdir()
    (folder / "teacher/result.json").write_text('{"config": {"model": {}}}')
    composed("rerun=teacher", code=2)
    assert "rerun=teacher: holds no student" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["run_dir", "sweep_dir", "rerun"])
def test_an_empty_directory_name_is_refused_in_one_line(key, folder, capsys):
    composed(f"{key}=", code=2)
    assert f"{key}= is empty: give a directory" in capsys.readouterr().err


def test_which_run_is_the_latest_is_said(folder, capsys):
    composed("run_dir=outputs/digits/a")
    composed("rerun=latest", "run_dir=b")
    assert "rerun=latest: outputs/digits/a\n" in capsys.readouterr().err
