"""A data set gives several inputs by name, of which a teacher reads other ones than the student: the student goes its way alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import kd_lightning as kd
from kd_lightning.cli.export import main as export
from kd_lightning.cli.predict import main as predict
from kd_lightning.cli.train import main as train

CODE = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Pairs(Dataset):
    """Token numbers for a teacher, three floats for its student."""

    def __len__(self):
        return 120

    def __getitem__(self, i):
        kind = i % 2
        floats = torch.randn(3, generator=torch.Generator().manual_seed(i)) + 3 * kind
        return {"tokens": torch.full((5,), 7 + kind), "floats": floats, "label": kind}


class Line(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.line = nn.Linear(3, num_classes)

    def forward(self, floats):
        return self.line(floats)
'''


@pytest.mark.slow
def test_a_student_that_reads_one_of_several_inputs_is_exported_and_predicts_from_that_one(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pairs_of_inputs.py").write_text(CODE)
    words = [
        "data=dataset",
        "data.train._target_=pairs_of_inputs.Pairs",
        "student=custom",
        "teacher=none",
        "method=none",
    ]
    words += ["student._target_=pairs_of_inputs.Line", "trainer.max_epochs=2", "trainer.accelerator=cpu", "run_dir=run"]
    assert train([*words, "pictures.every_n_epochs=0"]) == 0, capsys.readouterr().err
    run = kd.open_run("run")
    assert (run.reads, run.example_shape) == ("floats", (3,))
    rows = torch.randn(4, 3)
    both = {"tokens": torch.zeros(4, 5, dtype=torch.long), "floats": rows}
    assert torch.equal(run.predict(rows), run.predict(both))
    assert export(["run", "format=onnx,safetensors"]) == 0, capsys.readouterr().err
    np.save("rows.npy", rows.numpy())
    said = []
    for source in ("run", "run/export/student.onnx"):
        capsys.readouterr()
        assert predict([source, "rows.npy"]) == 0
        said.append([line.split(",")[1] for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1]
    assert len(said[0]) == 5
    sys.modules.pop("pairs_of_inputs", None)
