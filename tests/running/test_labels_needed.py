"""Data without labels: a student learns from a teacher, and nobody from nothing."""

from __future__ import annotations

import json
import sys

import pytest

from kd_lightning.cli.train import main

DATA = """
import torch
from torch.utils.data import Dataset


class Points(Dataset):
    def __init__(self, what="classes", named="y"):
        self.named = named
        generator = torch.Generator().manual_seed(0)
        self.x, self.what = torch.randn(200, 6, generator=generator), what
        self.y = (self.x[:, 0] > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        target = self.y[index]
        if self.what == "soft":
            target = torch.stack([1 - 0.9 * target, 0.9 * target]).float()
        x = (10 * self.x[index]).long() if self.what == "whole inputs" else self.x[index]
        return {"x": x, self.named: float(target) if self.what == "floats" else target}
"""
COMMON = (
    "data=dataset", "data.train._target_=unlabelled_points.Points", "data.batch_size=32", "data.num_classes=2",
    "teacher=mlp", "teacher.model.hidden=[8]", "teacher.train.max_epochs=2", "student.hidden=[8]",
    "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0", "run_dir=run",
)  # fmt: skip


@pytest.fixture
def kd_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "unlabelled_points.py").write_text(DATA)
    yield lambda *words: (main([*COMMON, *words]), "".join(capsys.readouterr()))
    sys.modules.pop("unlabelled_points", None)


def test_without_labels_a_student_learns_from_the_teacher_and_agreement_chooses_the_checkpoint(kd_train, tmp_path):
    code, told = kd_train("data.target=none", "data.inputs=[x]", "+teacher.data.target=y")
    assert code == 0, told
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["monitor"]["metric"] == "agreement"
    assert result["metrics"]["best/val_agreement"] > 0
    assert result["data"]["samples"]["labelled"] == 0
    assert result["baseline"] is None  # it would have learned nothing


def test_a_target_that_is_not_found_is_named_where_no_sample_has_a_label(kd_train):
    code, told = kd_train("+data.train.named=kind", "method=none")
    assert code == 2
    assert "in_features: the data does not say it" in told  # both fields are taken for inputs
    assert "WARNING: data: no target among x, kind (data.target names it)" in told
    code, told = kd_train("+data.train.named=kind", "method=none", "data.inputs=x")
    assert "no target among x, kind (data.target names it): no training sample has a label" in told
    assert "baseline=false" not in told


def test_a_teacher_is_not_trained_on_nothing(kd_train, tmp_path):
    code, told = kd_train("data.target=none", "data.inputs=[x]", "baseline=false")
    assert code == 2
    assert "no training sample has a label" in told
    assert "teacher.data" in told


def test_soft_labels_are_learned_and_measured(kd_train, tmp_path):
    code, told = kd_train("+data.train.what=soft", "baseline=false", "method.weights.task=1", "trainer.max_epochs=30")
    assert code == 0, told
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test/acc"] > 0.8


def test_values_are_not_taken_for_classes(kd_train):
    code, told = kd_train("+data.train.what=floats", "baseline=false", "data.num_classes=1")
    assert code == 2
    assert "data.target_type=classes" in told


def test_whole_numbers_as_inputs_of_a_perceptron_are_told_with_the_cast(kd_train):
    code, told = kd_train("+data.train.what='whole inputs'", "baseline=false")
    assert code == 2
    assert "data.input_type=float32" in told
    assert kd_train("+data.train.what='whole inputs'", "baseline=false", "data.input_type=float32")[0] == 0
