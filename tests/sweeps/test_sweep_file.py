"""``sweep.json`` is written as a whole, and what a killed start left of it does not stay."""

from __future__ import annotations

import json
import os
import time

from omegaconf import OmegaConf

from kd_lightning.sweeps.sweep_file import write_sweep_file

CONFIG = OmegaConf.create({"hydra": {"overrides": {"task": ["seed=0,1"]}, "sweeper": {}}})


def test_what_a_start_that_was_killed_while_it_wrote_has_left_is_removed(tmp_path):
    left, written_now = tmp_path / ".sweep.json.abcd.tmp", tmp_path / ".sweep.json.efgh.tmp"
    for path in (left, written_now):
        path.write_text('{"format"')
    long_ago = time.time() - 60
    os.utime(left, (long_ago, long_ago))
    write_sweep_file(tmp_path, CONFIG, [])
    assert not left.exists()
    assert written_now.exists()  # perhaps another process's
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"] == []
