"""Methods of every need in whole runs: features, heads, the sample's position, further epochs' clock."""

from __future__ import annotations

import json

import pytest
from processes import SMALL

from kd_lightning.cli.train import main


@pytest.mark.parametrize(
    "method", ["fitnet", "crd", "wkd_logit", "ctkd", "seed"], ids=["features", "index", "heads", "clock", "queue"]
)
def test_a_method_trains_from_the_command_line(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "baseline=false", f"method={method}", "run_dir=run"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished"
