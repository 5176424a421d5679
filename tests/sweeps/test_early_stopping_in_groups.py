"""Members of a group stop early by themselves, and stay stopped when the group is killed and continued."""

from __future__ import annotations

import time

import pytest
import torch
from processes import SMALL, lines, results, run, start, weights

STOPPING = (
    "-m",
    *SMALL,
    "baseline=false",
    "trainer.max_epochs=14",
    "optimizer.lr=0.3,0.01",
    "scheduler=constant",
    "early_stopping.patience=2",
    "early_stopping.min_delta=0.01",
    "data.augment=true",
    "seed=0,1",
    "sweep_dir=sweep",
)


@pytest.mark.slow
def test_early_stopping_members_end_alike_alone_fused_and_after_a_kill(tmp_path):
    undisturbed = run(tmp_path / "undisturbed", *STOPPING)
    assert undisturbed.code == 0, undisturbed.text
    expected = results(tmp_path / "undisturbed" / "sweep")
    epochs = {name: result["cost"]["epochs"] for name, result in expected.items()}
    assert len(set(epochs.values())) > 1, f"all stop at once, which shows nothing: {epochs}"
    assert min(epochs.values()) < 14

    killed = tmp_path / "killed"
    command, sweep = start(killed, *STOPPING), killed / "sweep"
    first = min(epochs, key=lambda name: epochs[name])

    def stopped() -> bool:
        try:
            content = torch.load(sweep / first / "checkpoints" / "last.ckpt", weights_only=True)
        except (FileNotFoundError, RuntimeError, EOFError):
            return False
        return content["recorder"]["status"] == "stopped"

    command.wait_for(stopped)
    time.sleep(0.1)
    command.kill()
    command.wait()
    written = (sweep / first / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    again = run(killed, *STOPPING)
    assert again.code == 0, again.text
    assert (sweep / first / "checkpoints" / "last.ckpt").stat().st_mtime_ns == written
    got = results(sweep)
    for name, result in expected.items():
        assert got[name]["metrics"] == result["metrics"]
        assert got[name]["cost"]["epochs"] == result["cost"]["epochs"]
        assert weights(sweep / name) == weights(tmp_path / "undisturbed" / "sweep" / name)
        validations = [line["epoch"] for line in lines(sweep / name) if "val/acc" in line]
        assert validations == list(range(epochs[name]))

    local = run(tmp_path / "local", *STOPPING, "launcher=local")
    assert local.code == 0, local.text
    for name, result in results(tmp_path / "local" / "sweep").items():
        assert result["metrics"] == expected[name]["metrics"]
