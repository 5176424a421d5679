"""A teacher whose weights say what their inputs were normalised by is told of where it is given others, else nobody is."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import torch
from teacher_runs import plain, teacher_yaml, train
from torch import nn

from kd_lightning.report.study import remarks
from kd_lightning.report.study.collect import collect
from kd_lightning.teachers.preprocessing import TrainedWith, beside, other_normalization, trained_with

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
INCEPTION = TrainedWith([0.5] * 3, [0.5] * 3, "its pretrained_cfg")
PIXELS = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def told(known, teacher=None, data=None, inputs=PIXELS):
    return other_normalization(known, teacher, data, inputs, "teacher")


def test_models_of_timm_and_of_torchvision_say_what_they_were_trained_with():
    module = nn.Sequential(nn.Linear(1, 1))
    assert trained_with({}, module, {"_target_": "mine.Net"}) is None
    module[0].pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert trained_with({"run_dir": None}, module, {}) == INCEPTION
    assert trained_with({"checkpoint": "mine.pth"}, module, {}) is None  # of other weights, nothing is known
    for node in (
        {"_target_": "torchvision.models.resnet50", "weights": "IMAGENET1K_V2"},
        {"_target_": "kd_lightning.config.named_models.pretrained_torchvision", "name": "resnet50"},
    ):
        known = trained_with({}, nn.Identity(), node)
        assert known is not None
        assert {"mean": known.mean, "std": known.std} == IMAGENET
    assert trained_with({}, nn.Identity(), {"_target_": "torchvision.models.resnet50"}) is None


def test_other_inputs_are_told_of_with_the_keys_that_set_them_right():
    said = told(INCEPTION, teacher=IMAGENET, data={"mean": [0.5] * 3, "std": [0.5] * 3})
    assert said is not None
    assert "teacher.normalization={mean:[0.5,0.5,0.5],std:[0.5,0.5,0.5]}" in said
    assert told(INCEPTION, data=IMAGENET) is not None
    assert told(INCEPTION, teacher={"mean": [0.5] * 3, "std": [0.5] * 3}, data=IMAGENET) is None
    almost = TrainedWith([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], "")
    assert told(almost, data={"mean": [0.491, 0.482, 0.447], "std": [0.247, 0.243, 0.262]}) is None


def test_where_the_data_do_not_say_the_inputs_range_tells():
    known = TrainedWith(**IMAGENET, said_by="")
    assert "look as if nobody had normalised them" in (told(known) or "")
    assert "data.mean" in (told(known) or "")
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert told(known, inputs=(PIXELS - mean) / std) is None
    assert "from 0.00 to 255" in (told(known, inputs=(PIXELS * 255).round()) or "")
    assert told(known, inputs=PIXELS[:, :1]) is None  # other channels: nothing is known


def test_an_exported_file_says_it_unless_it_normalises_itself(tmp_path):
    text = {"mean": [0.5], "std": [0.5], "inputs": {"onnx": "normalised", "pt": "uint8"}}
    (tmp_path / "preprocessing.json").write_text(json.dumps(text))
    assert beside(tmp_path / "student.onnx") == TrainedWith([0.5], [0.5], "its preprocessing.json")
    assert beside(tmp_path / "student.pt") is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_run_warns_of_it_and_its_report_as_well(folder, capfd):
    code = """
        from kd_lightning.models.mlp import MLP

        class Net(MLP):
            pretrained_cfg = {"mean": [0.5], "std": [0.5]}
    """
    (folder / "net_of_timm.py").write_text(textwrap.dedent(code))
    model = "{_target_: net_of_timm.Net, hidden: [8]}"
    teacher_yaml(folder, "mine", f"defaults: [none]\nname: mine\nmodel: {model}\n")
    result = train("teacher=mine")
    said = capfd.readouterr()
    assert (said.out + said.err).count("normalised by mean 0.5, std 0.5 (its pretrained_cfg)") == 1
    assert "come with mean 0.3066, std 0.3773" in result["teacher"]["normalised"]
    assert any("teacher.normalization={mean:[0.5],std:[0.5]}" in text for text in remarks.warnings(collect("run")[0]))


@pytest.mark.slow
def test_a_teacher_from_a_run_on_other_numbers_is_told_of_and_one_on_the_same_is_not(folder, capfd):
    plain(folder)
    train("teacher=net", "method=none", "run_dir=run")
    capfd.readouterr()
    taken = (
        "defaults: [none]\nname: taken\nmodel: {_target_: kd_lightning.models.mlp.MLP, hidden: [8]}\ncheckpoint: old\n"
    )
    teacher_yaml(folder, "taken", taken)
    Path("run").rename("old")
    assert "normalised" not in train("teacher=taken")["teacher"]
    result = json.loads(Path("old/result.json").read_text())
    result["data"]["mean"] = [0.5]
    Path("old/result.json").write_text(json.dumps(result))
    train("teacher=taken", "run_dir=run2")
    told_of = json.loads(Path("run2/result.json").read_text())["teacher"]["normalised"]
    assert "mean 0.5, std 0.3773" in told_of
    assert str(Path("old/result.json")) in told_of
