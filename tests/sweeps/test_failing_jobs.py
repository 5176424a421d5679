"""One job of a sweep that fails takes nobody with it, is named at the end, and is all that a second start runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from processes import SMALL, results, run, weights
from torch import nn

from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask

pytestmark = pytest.mark.slow  # all of them together

MODELS = '''
import os
import torch
from torch import nn


class Breaks(nn.Module):
    """Fails at its fifth training step, as long as the file "broken" is there."""

    def __init__(self, in_features, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 5 and os.path.exists("broken"):
            raise RuntimeError("a mistake of the user's own")
        return self.layers(x)
'''
ONE = (*SMALL, "baseline=false", "teacher=mlp")


@pytest.fixture(scope="module")
def broken_sweep(tmp_path_factory) -> Path:
    """A sweep of which one student breaks, one cannot be built and one goes to infinity; and three that are well."""
    cwd = tmp_path_factory.mktemp("failing")
    (cwd / "my_models.py").write_text(MODELS)
    (cwd / "broken").touch()
    mine = cwd / "mine" / "student"
    mine.mkdir(parents=True)
    (mine / "breaks.yaml").write_text("_target_: my_models.Breaks\nin_features: auto\nnum_classes: auto\n")
    (mine / "absent.yaml").write_text("_target_: my_models.NoSuchModel\n")
    (mine / "well.yaml").write_text("_target_: kd_lightning.models.mlp.MLP\nhidden: [16]\n")
    return cwd


def sweep(cwd: Path) -> object:
    common = [override for override in ONE if not override.startswith("student")]
    return run(
        cwd, "--config-dir", "mine", "-m", *common, "student=well,breaks", "optimizer.lr=0.05,1e30", "seed=0,1",
        "scheduler=constant", "sweep_dir=sweep",
    )  # fmt: skip


def test_failing_and_diverging_runs_leave_the_others_as_they_would_be_alone(broken_sweep):
    ended = sweep(broken_sweep)
    found = results(broken_sweep / "sweep")
    status = {name: result["status"] for name, result in found.items()}
    assert ended.code == 1, ended.text
    assert status == {
        "breaks_lr0.0500_s0": "failed",
        "breaks_lr0.0500_s1": "failed",
        "breaks_lr-1e-30-7412d9_s0": "failed",
        "breaks_lr-1e-30-7412d9_s1": "failed",
        "well_lr0.0500_s0": "finished",
        "well_lr0.0500_s1": "finished",
        "well_lr-1e-30-7412d9_s0": "diverged",
        "well_lr-1e-30-7412d9_s1": "diverged",
    }
    assert found["breaks_lr0.0500_s0"]["error"] == "RuntimeError: a mistake of the user's own"
    closing = ended.text[ended.text.index("configuration") :]
    for name, value in status.items():
        assert (f"{name} {value}:" in " ".join(closing.split())) == (value != "finished")
    assert "run again with: kd-train --config-dir mine -m" in closing
    assert "sweep_dir=sweep" in closing
    assert "Traceback" not in closing
    assert "Error executing job" not in closing
    assert closing.strip().splitlines()[-1].startswith("error: 6 of 8 runs did not finish: ")

    common = [override for override in ONE if not override.startswith("student")]
    alone = run(
        broken_sweep, "--config-dir", "mine", *common, "student=well", "scheduler=constant", "optimizer.lr=0.05",
        "seed=1", "run_dir=alone",
    )  # fmt: skip
    assert alone.code == 0, alone.text
    assert (
        json.loads((broken_sweep / "alone" / "result.json").read_text())["metrics"]
        == (found["well_lr0.0500_s1"]["metrics"])
    )
    assert weights(broken_sweep / "alone") == weights(broken_sweep / "sweep" / "well_lr0.0500_s1")


def test_started_again_only_what_failed_runs(broken_sweep):
    before = {
        name: result for name, result in results(broken_sweep / "sweep").items() if result["status"] == "finished"
    }
    (broken_sweep / "broken").unlink()
    ended = sweep(broken_sweep)
    after = results(broken_sweep / "sweep")
    assert {name: after[name] for name in before} == before
    assert after["breaks_lr0.0500_s0"]["status"] == "finished"
    assert after["well_lr-1e-30-7412d9_s0"]["status"] == "diverged"
    assert ended.code == 1
    assert "well_lr0.0500_s0 is finished already" in ended.text


def test_the_message_of_a_divergence_names_step_and_term_and_the_last_good_checkpoint_stays(tmp_path):
    import torch

    ended = run(tmp_path, *ONE, "optimizer.lr=1e30", "scheduler=constant", "run_dir=run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert ended.code == 1
    assert result["status"] == "diverged"
    assert "not finite since step" in result["error"]
    assert ended.text.strip().splitlines()[-1].startswith("error: run diverged: not finite since step")
    assert "Traceback" not in ended.text
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values()), path


def test_a_run_that_cannot_be_fused_runs_alone_and_the_log_says_why(tmp_path):
    ended = run(
        tmp_path, "-m", *ONE, "seed=0,1", "callbacks=device_stats", "sweep_dir=sweep",
    )  # fmt: skip
    assert ended.code == 0, ended.text
    assert "s0 runs alone: it has Lightning callbacks of its own (callbacks)" in ended.text
    assert {result["cost"]["fused"] for result in results(tmp_path / "sweep").values()} == {1}


def test_a_model_that_does_not_exist_fails_alone(broken_sweep):
    common = [override for override in ONE if not override.startswith("student")]
    ended = run(
        broken_sweep, "--config-dir", "mine", "-m", *common, "student=well,absent", "sweep_dir=absent",
        "scheduler=constant",
    )  # fmt: skip
    assert ended.code in (1, 2)
    assert "NoSuchModel" in ended.text
    if ended.code == 1:  # found when the run was built; 2: found before anything ran
        found = results(broken_sweep / "absent")
        assert {name: result["status"] for name, result in found.items()} == {"absent": "failed", "well": "finished"}


def test_an_epoch_ends_when_nobody_is_left_in_it():
    teacher_calls = []

    class Gone(Recorder):
        def log(self, step, epoch, metrics):
            self.done = step >= 3

    def teacher(batch):
        teacher_calls.append(1)
        return ModelOutput(torch.zeros(len(batch.target), 3))

    data = [(torch.randn(4), i % 3) for i in range(40)]
    method = Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.5, "kd": 0.5})
    member = Member(nn.Linear(4, 3), method, ClassificationTask(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    with ThreadedLoader(data, batch_size=2, num_threads=1, as_batch=True) as loader:
        trainer = pl.Trainer(
            max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Distiller(teacher, member, [Gone()], log_every_n_steps=1), loader)
    assert len(teacher_calls) == 3
    assert trainer.global_step == 3


def test_a_configuration_that_cannot_go_is_told_before_the_first_group_trains(tmp_path):
    batches = "data.batch_size=64,128,5000"
    ended = run(tmp_path, "-m", *ONE, batches, "data.drop_last=true", "seed=0,1", "sweep_dir=sweep")
    found = {name: result["status"] for name, result in results(tmp_path / "sweep").items()}
    assert ended.code == 1, ended.text
    assert [name for name, status in found.items() if status == "failed"] == ["b5000_s0", "b5000_s1"]
    assert len(found) == 6
    text = ended.text
    assert text.index("b5000_s1: data.batch_size=5000 is more than") < text.index("training the teacher")


def test_a_sweep_none_of_whose_groups_can_go_is_refused_and_leaves_nothing(tmp_path):
    ended = run(tmp_path, "-m", *ONE, "data.batch_size=4000,5000", "sweep_dir=sweep")
    assert ended.code == 2, ended.text
    assert ended.text.strip().splitlines()[-1].startswith("error: data.batch_size=4000 is more than")
    assert not (tmp_path / "sweep").exists()
