"""A loss that is not finite is not blamed on the learning rate where the inputs are to blame."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from kd_lightning.cli.train import main

DATA = """
import torch
from torch.utils.data import Dataset

class Measured(Dataset):
    def __init__(self, bad):
        self.x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
        self.targets = (self.x[:, 0] > 0).long()
        self.x[torch.tensor(bad, dtype=torch.long)] = float("nan")

    def __len__(self):
        return 120

    def __getitem__(self, index):
        return self.x[index], self.targets[index]
"""
BAD = [*range(3, 120, 4)]
START = (
    "data=dataset", "data.train._target_=not_finite_data.Measured", "data.batch_size=16", "teacher=none", "method=none",
    "trainer.accelerator=cpu", "student.hidden=[4]", "pictures.every_n_epochs=0", "trainer.max_epochs=2",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "not_finite_data.py").write_text(DATA)
    yield tmp_path
    sys.modules.pop("not_finite_data", None)


def error_of(*arguments: str) -> str:
    assert main([*START, *arguments, "run_dir=run"]) == 1
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "diverged"
    return result["error"]


def test_inputs_that_are_no_numbers_are_named_by_their_samples(folder):
    said = error_of(f"+data.train.bad={BAD}")
    found = re.search(
        r"not finite since step 1: loss_task; the inputs of sample \d+, item (\d+) of the training data "
        r"\(and of \d+ more of its batch\) hold nan or inf$",
        said,
    )
    assert found
    assert int(found[1]) in BAD
    assert "lr" not in said


def test_with_inputs_that_are_numbers_the_learning_rate_is_what_helps(folder):
    said = error_of("+data.train.bad=[]", "optimizer.lr=1e30", "scheduler=constant")
    assert "not finite since step" in said
    assert said.endswith("lower optimizer.lr or the weight of the term")
