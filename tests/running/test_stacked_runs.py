"""Runs of a sweep that are computed as one: stopped, continued, and never taken for those of the loop."""

from __future__ import annotations

import signal

import pytest
from processes import SMALL, lines, results, run, start, weights

SWEEP = (*SMALL, "-m", "seed=range(3)", "baseline=false", "stacked=true", "log_every_n_steps=1")


@pytest.mark.slow
def test_stopped_within_an_epoch_they_end_with_the_weights_of_those_that_were_not(tmp_path):
    (tmp_path / "slow_models.py").write_text(
        "import time\nfrom kd_lightning.models.mlp import MLP\n\n\nclass Slow(MLP):\n"
        "    def forward(self, x):\n        time.sleep(0.02 * self.training)\n        return super().forward(x)\n"
    )
    sweep = (*SWEEP, "student._target_=slow_models.Slow")
    whole = run(tmp_path, *sweep, "sweep_dir=whole")
    assert whole.code == 0, whole.text
    assert whole.text.count("stacked: 3 students are computed as one, equal to the loop up to rounding") == 1
    command = start(tmp_path, *sweep, "sweep_dir=stopped")
    some = tmp_path / "stopped" / "s0"
    command.wait_for(lambda: (some / "metrics.jsonl").is_file() and len(lines(some)) > 20)
    command.kill(signal.SIGTERM)
    assert command.wait(60).code == 130
    again = run(tmp_path, *sweep, "sweep_dir=stopped")
    assert again.code == 0, again.text
    assert "continues after step" in again.text
    assert results(tmp_path / "whole").keys() == results(tmp_path / "stopped").keys()
    for name in results(tmp_path / "whole"):
        assert weights(tmp_path / "stopped" / name) == weights(tmp_path / "whole" / name)


@pytest.mark.slow
def test_a_run_of_the_loop_is_none_of_those_computed_as_one(tmp_path):
    alone = (*SMALL, "baseline=false", "run_dir=run")
    assert run(tmp_path, *alone).code == 0
    other = run(tmp_path, *alone, "stacked=true")
    assert other.code == 2
    assert "holds a run with another configuration" in other.text
