"""Embeddings distilled from end to end: no label goes in, encoders trained for another task, self-distillation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kd_lightning.cli.train import main

COMMON = (
    "task=representation", "data=digits", "teacher=encoder", "teacher.encoder.train.max_epochs=1",
    "teacher.encoder.model.channels=[8,8]", "teacher.encoder.model.hidden=16", "teacher.encoder.data.labelled=null",
    "student=backbone", "student.model._target_=kd_lightning.models.small_cnn.SmallCNN",
    "+student.model.channels=[4]", "+student.model.image_size=8", "data.train_size=200", "data.labelled=0",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "pictures.every_n_epochs=0", "baseline=false",
)  # fmt: skip


@pytest.fixture
def kd_train(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def run(directory: str, *words: str, code: int = 0) -> tuple[dict, str]:
        got = main([*COMMON, f"run_dir={directory}", *words])
        told = "".join(capfd.readouterr())
        assert got == code, told
        result = tmp_path / directory / "result.json"
        return (json.loads(result.read_text()) if result.exists() else {}), told

    return run


def test_an_encoder_that_was_trained_for_classes_teaches_embeddings(kd_train):
    result, told = kd_train("run", "method=embedding", "+teacher.encoder.data.train_size=300")
    assert (result["task"], result["monitor"]["metric"]) == ("representation", "knn")
    assert result["data"]["samples"]["labelled"] == 0
    assert {"test/knn", "test/probe", "test/dimensions"} <= result["teacher"].keys()
    for name in ("knn", "probe", "agreement"):
        assert 0 < result["metrics"][f"test/{name}"] <= 1
    encoder = result["teacher"]["members"]["encoder"]
    own = json.loads((Path(encoder["run_dir"]) / "result.json").read_text())
    assert own["task"] == "classification"
    assert own["data"]["samples"]["labelled"] == 300
    assert "training the teacher small_cnn (encoder)" in told


@pytest.mark.parametrize("method", ["embedding", "dino"])
def test_training_never_reads_a_label(method, kd_train, tmp_path):
    words = [f"method={method}", "data.extra_views=1", "data.augment=true"]
    for name, labelled in (("with", "null"), ("without", "0")):
        kd_train(name, *words, f"data.labelled={labelled}")
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_self_distillation_needs_no_teacher_and_keeps_the_last_state(kd_train):
    result, _ = kd_train("run", "method=dino", "data.extra_views=1", "data.augment=true")
    assert result["metrics"]["best/epoch"] == 2
    without, _ = kd_train(
        "none", "method=dino", "data.extra_views=1", "data.augment=true", "~teacher.encoder", "~teacher.layer",
        "teacher._target_=kd_lightning.teachers.trained.TrainedTeacher", "+teacher.model=null",
    )  # fmt: skip
    assert without["teacher"] is None
    assert without["metrics"]["test/knn"] == result["metrics"]["test/knn"]


def test_who_would_learn_nothing_is_refused_in_one_line(kd_train):
    _, told = kd_train("run", "method=none", code=2)
    assert "task: representation has no loss of its own, run has nothing to learn from: baseline=false leaves" in told
    result, told = kd_train("with", "method=embedding", "baseline=true")
    assert "student_alone has nothing to learn from: baseline=false" in told
    assert result["status"] == "finished"


def test_an_encoders_key_that_does_not_exist_is_told_as_a_teachers(kd_train):
    _, told = kd_train("run", "method=embedding", "+teacher.encoder.train.max_epoch=3", code=2)
    assert "teacher.encoder.train.max_epoch: no such key; did you mean 'max_epochs'" in told
