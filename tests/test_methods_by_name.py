"""Every shipped method by its name on the command line, found by its file: a whole run, from the first try to the test."""

from __future__ import annotations

import json

import pytest
from method_builds import METHODS

from kd_lightning.cli.train import main

OF_VIEWS = {"crld", "dino", "mlld", "sskd"}  # compare views of a sample
OF_RESNETS = {"cat_kd", "sdd", "srrl"}  # classify the mean of the tapped map
ALONE = {"none", "assignments"}  # nothing to teach; a teacher that clusters: tests/running/test_clustering_runs.py
SMALL = ("student=small_cnn", "teacher=small_cnn", "teacher.model.channels=[8,16]")
RESNETS = ("student=resnet8", "teacher=resnet32x4", "teacher.model._target_=kd_lightning.models.resnet_cifar.resnet14")
SHORT = (
    "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=32", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "teacher.train.max_epochs=1", "pictures.every_n_epochs=0", "baseline=false", "sweep_dir=runs",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "keys"),
    [
        ({path.stem for path in METHODS} - OF_VIEWS - OF_RESNETS - ALONE, SMALL),
        (OF_VIEWS, (*SMALL, "data.extra_views=1")),
        (OF_RESNETS, RESNETS),
    ],
    ids=["maps and logits", "views", "ResNets"],
)
def test_it_trains_and_is_tested(names, keys, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", f"method={','.join(sorted(names))}", *keys, *SHORT]) == 0, capsys.readouterr().err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert {result["status"] for result in results} == {"finished"}
    assert len(results) == len(names)
