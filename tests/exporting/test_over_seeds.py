"""A card of a sweep's run says what all seeds of its configuration say, with the interval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import kd_lightning as kd
from kd_lightning.exporting.over_seeds import over_seeds


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Three seeds of a configuration and their students alone, as far as the report reads them; invented figures."""
    folder = tmp_path / "sweep"
    found = [("distilled", seed, 0.9 + 0.01 * seed) for seed in range(3)]
    found += [("alone", seed, 0.85 + 0.02 * seed) for seed in range(3)]
    for role, seed, accuracy in found:
        place = folder / f"{role}_{seed}"
        place.mkdir(parents=True)
        result = {
            "name": role, "role": role, "status": "finished", "seed": seed, "overrides": [f"seed={seed}"],
            "task": "classification", "fingerprint": f"{role}{seed}", "config": {"seed": seed},
            "monitor": {"metric": "acc", "mode": "max"},
            "metrics": {"test/acc": accuracy, "best/val_acc": accuracy},
        }  # fmt: skip
        (place / "result.json").write_text(json.dumps(result))
    (folder / "sweep.json").write_text(json.dumps({"command": "kd-train -m seed=0,1,2"}))
    return folder


def test_the_interval_is_that_of_pairs_by_seed(sweep):
    said = over_seeds(sweep / "distilled_1")
    assert said is not None
    assert "one of 3 runs" in said
    assert "91.0 ± 1.0 %" in said
    assert "better by 4.0 points than the student alone (95 % CI [+1.5, +6.5], paired by seed, n\u00a0=\u00a03)" in said
    alone = over_seeds(sweep / "alone_1")
    assert alone is not None
    assert "87.0 ± 2.0 %" in alone
    assert "better" not in alone


def test_one_seed_or_no_sweep_says_nothing(sweep):
    for seed in (1, 2):
        shutil.rmtree(sweep / f"distilled_{seed}")
    assert over_seeds(sweep / "distilled_0") is None
    shutil.move(sweep / "alone_0", sweep.parent / "moved")
    assert over_seeds(sweep.parent / "moved") is None


def test_the_card_of_a_sweeps_run_has_it(convolutional, tmp_path):
    for seed in (0, 1):
        place = Path(shutil.copytree(convolutional, tmp_path / f"s{seed}"))
        result = json.loads((place / "result.json").read_text())
        result["seed"] = result["config"]["seed"] = seed
        (place / "result.json").write_text(json.dumps(result))
    (tmp_path / "sweep.json").write_text(json.dumps({"command": "kd-train -m seed=0,1"}))
    kd.export(tmp_path / "s0", ["torch_export"])
    assert "one of 2 runs that differ in their seeds only" in (tmp_path / "s0" / "export" / "README.md").read_text()
