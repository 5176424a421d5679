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


def test_a_method_on_two_views_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "baseline=false", "method=crld", "data.extra_views=1", "data.augment=true", "run_dir=run"]
    assert main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("train/loss_across" in line for line in lines)


@pytest.mark.parametrize(("optimizer", "method"), [("dot", "kd"), ("deepkd", "deepkd")])
def test_optimizers_with_several_gradients_train(optimizer, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "baseline=false", f"method={method}", f"optimizer={optimizer}", "run_dir=run"]
    assert main(words) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["metrics"]["test/acc"] > 0.2


def test_an_optimizer_whose_parts_the_method_lacks_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "baseline=false", "method=kd", "optimizer=deepkd", "run_dir=run"]) == 2
    assert "method.terms.kd: DeepKD knows the parts" in capfd.readouterr().err
