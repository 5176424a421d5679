"""A teacher that has nothing to teach is told of, where it had a chance to learn."""

from __future__ import annotations

import pytest

from kd_lightning.cli.train import main

TINY = (
    "data.num_threads=1", "trainer.accelerator=cpu", "teacher=mlp", "teacher.model.hidden=[8]", "student.hidden=[8]",
    "teacher.train.max_epochs=1", "teacher.train.optimizer.lr=1e-9", "teacher.train.scheduler=null", "baseline=false",
    "run_dir=run",
)  # fmt: skip


@pytest.mark.parametrize(("how", "told"), [("debug=fast", False), ("trainer.max_epochs=1", True)])
def test_a_useless_teacher_is_told_of_unless_a_batch_is_all_that_it_saw(how, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, how]) == 0
    assert ("WARNING: the teacher" in capsys.readouterr().out) == told
