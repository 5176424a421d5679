"""``trainer.strategy=fsdp``: two processes that hold half a teacher each are the two that hold a whole one."""

from __future__ import annotations

import pytest
import torch
from processes import SMALL, results, run, weights

from kd_lightning.cli.train import main

TWO = (
    "-m",
    *SMALL,
    "trainer.devices=2",
    "seed=0",
    "baseline=false",
    "data.batch_size=64",
    "data.eval_batch_size=48",
    "teacher.cache=off",
    "method=fitnet",
)
"""Batches of evaluation that do not come out even: one process has one less."""


@pytest.mark.slow
def test_a_divided_teacher_teaches_what_a_whole_one_teaches(tmp_path):
    for strategy in ("ddp", "fsdp"):
        done = run(tmp_path, *TWO, f"trainer.strategy={strategy}", f"sweep_dir={strategy}", timeout=300)
        assert done.code == 0, done.text
        assert ("teacher: each process holds its share of the weights" in done.text) == (strategy == "fsdp")
    (ddp,), (fsdp,) = (results(tmp_path / name).values() for name in ("ddp", "fsdp"))
    assert fsdp["metrics"] == ddp["metrics"]
    assert {**fsdp["teacher"], "latency_ms": 0} == {**ddp["teacher"], "latency_ms": 0}
    name = next((tmp_path / "ddp").glob("*/result.json")).parent.name
    assert weights(tmp_path / "ddp" / name) == weights(tmp_path / "fsdp" / name)
    assert torch.isfinite(torch.tensor(fsdp["teacher"]["latency_ms"]))


def test_one_process_has_nobody_to_divide_a_teacher_with(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "trainer.strategy=fsdp"]) == 2
    assert "trainer.strategy: fsdp divides the teacher among processes: set trainer.devices" in capsys.readouterr().err
