"""kd-train with mixed pictures: what cannot take them is refused in one line, and how a run is run does not matter."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from processes import SMALL, lines, results, run, start, weights

from kd_lightning.cli.train import main

MIXED = ("data.augment.mixup=0.4", "data.augment.cutmix=1.0", "data.augment.crop_padding=1")
KNN = "teacher.estimator._target_=sklearn.neighbors.KNeighborsClassifier"
TINY = (
    *(o for o in SMALL if "max_epochs" not in o),
    "trainer.max_epochs=1",
    "teacher.train.max_epochs=1",
    "baseline=false",
)
REFUSED = {
    "a term that looks at the label": (
        (*TINY, "method=dkd"), "method.terms.true_class: TrueClassLoss looks at the sample's label"
    ),
    "out-of-fold answers": (
        ("teacher=sklearn", KNN, "trainer.accelerator=cpu"), "teacher.folds=5 has each training sample answered by"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_cannot_take_mixed_samples_is_one_line(what, folder, capsys):
    overrides, says = REFUSED[what]
    assert main([*overrides, "data.augment.mixup=0.4"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert says in told[-1]
    assert told[-1].startswith("error: ")


def test_stored_answers_are_read_under_mixing_and_give_the_figures_of_the_live_teacher(folder, capsys):
    more = ("data.train_size=256", "teacher.cache_precision=fp32")
    for name, cache in (("live", "off"), ("stored", "caches")):
        assert main([*TINY, *MIXED, *more, f"teacher.cache={cache}", f"run_dir={name}"]) == 0
    assert "teacher cache: reading 1 view of 256 samples" in capsys.readouterr().out
    live, stored = (json.loads((folder / name / "result.json").read_text()) for name in ("live", "stored"))
    assert stored["metrics"]["test/acc"] == live["metrics"]["test/acc"]
    assert stored["metrics"]["test/loss_task"] == pytest.approx(live["metrics"]["test/loss_task"], rel=1e-5)


@pytest.mark.slow
def test_in_lockstep_and_alone_mixed_samples_leave_the_same_weights(tmp_path):
    sweep = ("-m", *SMALL, *MIXED, "baseline=false", "method=kd,none", "student.dropout=0.2", "sweep_dir=fused")
    fused = run(tmp_path, *sweep)
    assert fused.code == 0, fused.text
    assert {result["cost"]["fused"] for result in results(tmp_path / "fused").values()} == {2}
    for method in ("kd", "none"):
        alone = run(
            tmp_path, *sweep[1:-4], "baseline=false", f"method={method}", "student.dropout=0.2", f"run_dir={method}"
        )
        assert alone.code == 0, alone.text
        assert weights(tmp_path / method) == weights(tmp_path / "fused" / method)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_an_epoch_ends_with_the_weights_of_one_that_is_not(tmp_path):
    (tmp_path / "slow_models.py").write_text(
        "import time\nfrom kd_lightning.models.mlp import MLP\n\n\nclass Slow(MLP):\n"
        "    def forward(self, x):\n        time.sleep(0.02 * self.training)\n        return super().forward(x)\n"
    )
    mixed = (*SMALL, *MIXED, "baseline=false", "student._target_=slow_models.Slow", "log_every_n_steps=1")
    assert run(tmp_path, *mixed, "run_dir=whole").code == 0
    command = start(tmp_path, *mixed, "run_dir=stopped")
    command.wait_for(lambda: (tmp_path / "stopped" / "metrics.jsonl").is_file() and _steps(tmp_path / "stopped") > 9)
    command.kill(signal.SIGTERM)
    assert command.wait(60).code == 130
    assert run(tmp_path, *mixed, "run_dir=stopped").code == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_have_the_mixed_loss_of_one_with_the_doubled_batch(tmp_path):
    mixed = (*SMALL, *MIXED, "baseline=false", "log_every_n_steps=1", "data.labelled=400", "trainer.max_epochs=2")
    one = run(tmp_path, *mixed, "data.batch_size=128", "run_dir=one")
    two = run(
        tmp_path, *mixed, "data.batch_size=64", "trainer.devices=2", "+teacher.data.batch_size=128", "run_dir=two"
    )
    assert one.code == two.code == 0, one.text + two.text
    curves = [
        torch.tensor([line["train/loss_task"] for line in lines(tmp_path / name) if "train/loss_task" in line])
        for name in ("one", "two")
    ]
    assert len(curves[0]) > 8
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-4, atol=1e-5)


def _steps(run_dir: Path) -> int:
    return len((run_dir / "metrics.jsonl").read_text().splitlines())
