"""Clusters distilled from end to end: what comes out, and that no label went in."""

from __future__ import annotations

import json

import pytest
import torch

import kd_lightning as kd
from kd_lightning.cli.train import main

COMMON = (
    "experiment=digits_clusters", "trainer.max_epochs=3", "data.train_size=200", "trainer.accelerator=cpu",
    "pictures.every_n_epochs=0", "student.hidden=[16]",
)  # fmt: skip


@pytest.fixture
def kd_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(directory: str, *words: str) -> dict:
        code = main([*COMMON, f"run_dir={directory}", *words])
        assert code == 0, capsys.readouterr().err
        return json.loads((tmp_path / directory / "result.json").read_text())

    return run


def weights(folder, directory: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("method", ["assignments", "none"])
def test_training_never_reads_a_label(method, kd_train, tmp_path):
    """With every label, and with none: the same weights bit by bit, the same checkpoint."""
    words = [f"method={method}", "baseline=false"]
    with_labels = kd_train("with", "data.labelled=null", *words)
    without = kd_train("without", "data.labelled=0", *words)
    assert (with_labels["data"]["samples"]["labelled"], without["data"]["samples"]["labelled"]) == (200, 0)
    ours, theirs = weights(tmp_path, "with"), weights(tmp_path, "without")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert with_labels["metrics"] == without["metrics"]
    assert with_labels["teacher"]["test/nmi"] == without["teacher"]["test/nmi"]


def test_a_run_and_its_baseline_report_what_suits_clusters(kd_train):
    result = kd_train("run")
    assert result["task"] == "clustering"
    assert result["monitor"] == {"metric": "nmi", "mode": "max"}
    for name in ("nmi", "cluster_acc", "ari", "silhouette", "agreement", "nmi_teacher"):
        assert -1 <= result["metrics"][f"test/{name}"] <= 1
    assert {"test/nmi", "test/ari", "test/silhouette", "val/nmi", "temperature"} <= result["teacher"].keys()
    assert result["baseline"]["test/nmi"] < result["teacher"]["test/nmi"]


@pytest.mark.parametrize("teacher", ["kmeans", "gmm"])
def test_other_teachers_that_cluster_teach(teacher, kd_train):
    result = kd_train("run", f"teacher={teacher}", "baseline=false", "trainer.max_epochs=15")
    assert result["teacher"]["name"] == teacher
    assert result["metrics"]["test/agreement"] > 0.3


@pytest.mark.slow
def test_one_key_says_how_many_clusters_there_are(kd_train, tmp_path, capsys):
    few = ("teacher=kmeans", "trainer.max_epochs=1")
    result = kd_train("run", *few, "teacher.clusters=12")
    assert kd.open_run(tmp_path / "run").predict(torch.zeros(2, 1, 8, 8)).shape == (2, 12)
    assert "test/nmi" in result["baseline"]
    alone = ("teacher=none", "method=none", "trainer.max_epochs=1", "task.clusters=7")
    kd_train("alone", *alone)
    assert kd.open_run(tmp_path / "alone").predict(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    for words, told in (
        (("teacher.clusters=12", "student.num_classes=11"), "student: answers for 11 clusters, task.clusters=12"),
        (
            ("teacher.clusters=12", "task.clusters=11"),
            "error: teacher.clusters=12, and task.clusters=11: give the number",
        ),
    ):
        assert main([*COMMON, "run_dir=no", *few, *words]) == 2
        assert [line for line in capsys.readouterr().err.splitlines() if told in line]


@pytest.mark.slow
def test_an_encoder_has_the_outputs_of_its_own_task(kd_train, tmp_path):
    """It was trained for ten classes, and its features are divided into twelve clusters."""
    (tmp_path / "mine/teacher").mkdir(parents=True)
    (tmp_path / "mine/teacher/divided.yaml").write_text(
        "defaults: [kmeans, {/teacher@encoder: small_cnn}, _self_]\nlayer: hidden\nclusters: 12\n"
        "encoder: {data: {labelled: null}, train: {max_epochs: 1, task: {_target_: kd_lightning.tasks.classification.ClassificationTask}}}\n"
    )
    result = kd_train("run", "--config-dir=mine", "teacher=divided", "trainer.max_epochs=1", "baseline=false")
    assert kd.open_run(tmp_path / "run").predict(torch.zeros(2, 1, 8, 8)).shape == (2, 12)
    assert 0 < result["teacher"]["test/nmi"] < 1
