"""A student that starts from another run's weights: how a finished run is extended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kd_lightning.cli.train import main
from kd_lightning.config.fingerprint import identify

TINY = (
    "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=32", "pictures.every_n_epochs=0",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "method=none", "teacher=none",
)  # fmt: skip


def train(*overrides):
    return main([*TINY, *overrides])


def student(run_dir, name="best"):
    state = torch.load(Path(run_dir) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("student.")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_finished_run_is_extended_from_its_weights_as_the_refusal_says(folder, capfd):
    assert train("run_dir=first", "scheduler=constant") == 0
    assert train("run_dir=first", "trainer.max_epochs=2", "scheduler=constant") == 2
    assert ", init_from=" in capfd.readouterr().err
    assert train("run_dir=second", "init_from=first", "scheduler=constant", "optimizer.lr=1e-12") == 0
    a, b = student("first"), student("second")
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a if "num_batches" not in key)
    assert json.loads(Path("second/result.json").read_text())["status"] == "finished"


def test_the_weights_count_by_what_is_in_them_and_a_missing_one_is_one_line(folder, capfd):
    assert train("run_dir=nowhere", "init_from=lost") == 2
    assert "init_from: no checkpoint there: lost" in capfd.readouterr().err
    for name in ("a", "b"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "checkpoints" / "best.ckpt").write_bytes(b"same")
    base = {"seed": 0, "init_from": None}
    prints = {name: identify({**base, "init_from": name}).fingerprint for name in ("a", "b")}
    assert prints["a"] == prints["b"] != identify(base).fingerprint
    (folder / "b" / "checkpoints" / "best.ckpt").write_bytes(b"other")
    assert identify({**base, "init_from": "b"}).fingerprint != prints["a"]
    assert identify(base).fingerprint == identify({"seed": 0}).fingerprint


def test_a_run_without_validation_and_one_of_few_steps_end_with_a_result(folder):
    assert train("run_dir=blind", "+trainer.limit_val_batches=0") == 0
    result = json.loads(Path("blind/result.json").read_text())
    assert result["status"] == "finished"
    assert "test/acc" in result["metrics"]
    assert "best/val_acc" not in result["metrics"]
    assert train("run_dir=short", "+trainer.max_steps=1") == 0
    result = json.loads(Path("short/result.json").read_text())
    assert (result["cost"]["steps"], result["metrics"]["best/step"]) == (1, 1)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu: this machine has none; it has cpu"),
        ("+trainer.limit_train_batches=2.5", "trainer: You have passed invalid value 2.5"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches: must be > 0, got 0"),
        ("trainer.precision=64-true", "trainer.precision: must be one of 32-true"),
        ("+optimizer.layers={hidden: {lrr: 1}}", "optimizer.layers.hidden.lrr: torch.optim.SGD has no such argument"),
        ("+optimizer.layers={hiden: {frozen: true}}", "the model has no layer 'hiden'; did you mean hidden"),
    ],
)
def test_what_lightning_or_the_student_cannot_take_is_one_line(folder, capfd, override, says):
    assert train("run_dir=run", override) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert says in errors[0]


def test_lightnings_own_switches_are_accepted(folder):
    switches = (
        "enable_progress_bar=false",
        "enable_model_summary=false",
        "enable_checkpointing=false",
        "num_sanity_val_steps=2",
    )
    assert train("run_dir=run", *(f"+trainer.{switch}" for switch in switches)) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert sum("val/acc" in line for line in lines) == 1  # the sanity check is no validation
