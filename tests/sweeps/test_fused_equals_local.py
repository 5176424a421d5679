"""A run's figures and weights do not depend on how it was run: in lockstep, one after the other, or by itself."""

from __future__ import annotations

import json

import pytest
from processes import SMALL, results, run, weights

TEACHER = ("teacher=mlp", "teacher.model.hidden=[48]", "teacher.train.max_epochs=2")
COMMON = tuple(o for o in SMALL if not o.startswith(("student", "method")))
SWEEPS = {
    "hyperparameters": ("student.dropout=0.2", "method.temperature=1,8", "optimizer.lr=0.02,0.1", "data.augment=true"),
    "networks": ("student=mlp,small_cnn", "student.dropout=0.2", "seed=0,1"),
    "methods": ("method=kd,dkd,logits_mse,none", "student.hidden=[16]", "seed=1"),
    "features": ("method=kd,rkd,sp,pkt", "student=small_cnn", "student.channels=[4,8]", "student.hidden=16"),
    "recipes": (
        "student=small_vit",
        "student.width=8",
        "student.heads=2",
        "student.drop_path=0,0.4",
        "optimizer=lamb,adamw",
        "task.bce=true",
        "data.augment.mixup=0.1",
    ),
    "clipped": ("trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=3", "method.weights.kd=0.2,0.8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SWEEPS))
def test_fused_and_local_and_single_runs_leave_the_same_figures_and_weights(tmp_path, name):
    fused = run(tmp_path, "-m", *COMMON, *SWEEPS[name], "sweep_dir=fused")
    assert fused.code == 0, fused.text
    local = run(tmp_path, "-m", *COMMON, *SWEEPS[name], "sweep_dir=local", "launcher=local")
    assert local.code == 0, local.text
    expected, got = results(tmp_path / "local"), results(tmp_path / "fused")
    assert sorted(got) == sorted(expected)
    assert max(result["cost"]["fused"] for result in got.values()) > 2
    assert {result["cost"]["fused"] for result in expected.values()} == {1}
    for run_name in expected:
        same_result(got[run_name], expected[run_name])
        assert weights(tmp_path / "fused" / run_name) == weights(tmp_path / "local" / run_name)

    last = sorted(name for name, result in expected.items() if result["role"] == "distilled")[-1]
    overrides = [o for o in expected[last]["overrides"] if not o.startswith(("sweep_dir", "launcher"))]
    single = run(tmp_path, *overrides, "run_dir=single", "baseline=false")
    assert single.code == 0, single.text
    same_result(json.loads((tmp_path / "single" / "result.json").read_text()), expected[last])
    assert weights(tmp_path / "single") == weights(tmp_path / "local" / last)


def same_result(one: dict, other: dict) -> None:
    assert one["status"] == other["status"] == "finished"
    assert one["metrics"] == other["metrics"]
    assert one["fingerprint"] == other["fingerprint"]
    assert one["teacher"]["test/acc"] == other["teacher"]["test/acc"]


@pytest.mark.slow
def test_max_fused_bounds_how_many_runs_train_side_by_side(tmp_path):
    ended = run(tmp_path, "-m", *SMALL, "baseline=false", "seed=0,1,2,3,4", "max_fused=2", "sweep_dir=sweep")
    assert ended.code == 0, ended.text
    together = sorted(result["cost"]["fused"] for result in results(tmp_path / "sweep").values())
    assert together == [1, 2, 2, 2, 2]
