"""A finished run's student comes back from its directory alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from processes import run

import kd_lightning as kd
from kd_lightning.data.summary import structure
from kd_lightning.errors import UserError

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, num_classes, width=8):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, inputs):
        return self.net(inputs)
"""
QUICK = ("teacher=none", "method=none", "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a user's ``open_run_net.py`` and its finished ``run``."""
    folder = tmp_path_factory.mktemp("open_run")
    (folder / "open_run_net.py").write_text(NET)
    (folder / "mine" / "student").mkdir(parents=True)
    (folder / "mine" / "student" / "net.yaml").write_text("_target_: open_run_net.Net\nwidth: 12\n")
    ended = run(folder, "--config-dir", "mine", "student=net", *QUICK, "run_dir=run")
    assert ended.code == 0, ended.text
    return folder


@pytest.fixture
def here(trained, monkeypatch) -> Path:
    """``trained``, with its module importable, as if the process had been started there."""
    monkeypatch.syspath_prepend(str(trained))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield trained
    sys.modules.pop("open_run_net", None)


@pytest.fixture
def copied(here, tmp_path) -> Path:
    return Path(shutil.copytree(here / "run", tmp_path / "run"))


def test_the_student_comes_back_without_its_data(here, monkeypatch):
    monkeypatch.setattr("kd_lightning.config.build.build_datamodule", None)
    monkeypatch.setattr("sklearn.datasets.load_digits", None)
    opened = kd.open_run(here / "run")
    stored = torch.load(here / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert not opened.student.training
    assert torch.equal(opened.student.net[1].weight, stored["student.net.1.weight"])
    assert opened.sizes == {"num_classes": 10, "in_channels": 1, "in_features": 64, "image_size": 8}
    assert opened.example_shape == (1, 8, 8)
    assert opened.class_names == [str(digit) for digit in range(10)]
    assert opened.spec.config["student"]["width"] == 12
    assert opened.metrics["test/acc"] > 0
    assert opened.student(opened.example_inputs(3)).shape == (3, 10)


def test_raw_pixels_become_what_the_student_was_trained_on(here):
    from kd_lightning.data.digits import DigitsData

    data = DigitsData()
    pixels, _ = data.test_data()
    loader = data.test_dataloader()
    batch = next(iter(loader))
    loader.close()
    made = kd.open_run(here / "run").preprocessing(pixels[: len(batch.inputs)])
    assert torch.allclose(made, batch.inputs, atol=1e-6)


def change(run_dir: Path, **fields: object) -> None:
    result = json.loads((run_dir / "result.json").read_text())
    (run_dir / "result.json").write_text(json.dumps({**result, **fields}))


def refused(run_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        kd.open_run(run_dir)
    assert "\n" not in str(caught.value)
    assert str(run_dir) in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_opened_is_one_line_with_the_directory(here, copied, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no result.json" in refused(tmp_path / "empty")
    change(copied, status="interrupted")
    assert "the run is interrupted" in refused(copied)
    change(copied, status="finished")
    best = copied / "checkpoints" / "best.ckpt"
    whole = best.read_bytes()
    best.write_bytes(whole[: len(whole) // 2])
    assert "best.ckpt: not a readable checkpoint" in refused(copied)
    best.unlink()
    assert "best.ckpt: no such file" in refused(copied)


def test_a_result_that_does_not_tell_the_sizes_names_the_one_that_is_missing(copied):
    change(copied, data=None)
    assert "student.in_features: the data does not say it" in refused(copied)


def test_a_models_file_that_is_not_found_here_is_told_with_the_folder_that_has_it(trained, copied, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(trained)])
    shutil.copytree(trained / "run" / ".hydra", copied / ".hydra", dirs_exist_ok=True)
    text = refused(copied)
    assert "no module 'open_run_net'" in text
    assert f"the run was started in {trained}" in text


def test_a_model_whose_code_changed_since_is_told_with_its_file(trained, copied, tmp_path, monkeypatch):
    changed = tmp_path / "elsewhere"
    changed.mkdir()
    (changed / "open_run_net.py").write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    monkeypatch.setattr(sys, "path", [str(changed), *(entry for entry in sys.path if entry != str(trained))])
    assert "open_run_net.py changed since the run was trained" in refused(copied)
    (changed / "open_run_net.py").write_text("# a comment\n" + NET)
    sys.modules.pop("open_run_net", None)
    kd.open_run(copied)


def test_a_model_of_another_shape_than_the_trained_one_is_told(here, copied):
    config = json.loads((copied / "result.json").read_text())["config"]
    config["student"]["width"] = 6
    change(copied, config=config)
    assert "made for another architecture than Net (net.1.weight has shape (12, 64), expected (6, 64)" in refused(
        copied
    )


@pytest.mark.parametrize("given", [None, "", 3])
def test_what_is_no_directory_is_one_line(given):
    with pytest.raises(UserError, match=r"open_run\(.*\): give the directory of a finished run, or 'latest'"):
        kd.open_run(given)


def test_a_file_of_the_run_is_its_result_or_one_line(here):
    assert kd.open_run(here / "run/result.json").metrics["test/acc"] > 0
    with pytest.raises(UserError, match=r"best\.ckpt: is a file; give the directory"):
        kd.open_run(here / "run/checkpoints/best.ckpt")


def test_the_latest_run_needs_no_name(here, monkeypatch, tmp_path):
    shutil.copytree(here / "run", tmp_path / "outputs/net/a")
    monkeypatch.chdir(tmp_path)
    assert kd.open_run("latest").spec.run_dir == Path("outputs/net/a")


def test_shown_it_is_one_line_without_the_configuration(here):
    text = repr(kd.open_run(here / "run"))
    assert "Net; test/acc 0." in text
    assert len(text) < 300
    assert "\n" not in text


def test_texts_among_the_inputs_are_empty_ones_in_an_example(copied, here):
    example = {"fields": {"x": {"shape": [3], "dtype": "float32"}, "words": structure(["a", "b"])}}
    change(copied, data={**json.loads((copied / "result.json").read_text())["data"], "example": example})
    made = kd.open_run(copied).example_inputs(2)
    assert made["words"] == ["", ""]
    assert made["x"].shape == (2, 3)
