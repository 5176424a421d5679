"""A Distiller in a user's own Trainer of two processes: callbacks, loaders and Lightning's sampler are the user's."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kd_lightning as kd
from kd_lightning.losses.similarity import SimilarityLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.tasks.classification import ClassificationTask


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def trained(folder: Path, devices: int) -> dict:
    """What a user finds after training: weights, metrics, the best checkpoint, how many steps, what was warned of."""
    torch.manual_seed(0)
    inputs = torch.randn(224, 1, 8, 8)
    data = TensorDataset(inputs, (inputs.flatten(1) @ torch.randn(64, 10)).argmax(1))
    train, validation = torch.utils.data.Subset(data, range(160)), torch.utils.data.Subset(data, range(160, 224))
    teacher, student = kd.FrozenTeacher(net(64), taps={"2": "2"}), net(8)
    method = kd.Method(
        {"kd": SoftTargetLoss(4.0), "sp": SimilarityLoss(["hidden"])},  # the second is of all pairs of a batch
        {"task": 0.1, "kd": 0.9, "sp": 30.0},
        taps={"student": {"hidden": "2"}, "teacher": {"hidden": "2"}},
    )
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    member = kd.Member(
        student, method, ClassificationTask(), optimizer=optimizer, scheduler=schedule, scheduler_interval="epoch"
    )
    best = ModelCheckpoint(folder / "own", monitor="val/acc", mode="max")
    trainer = pl.Trainer(
        max_epochs=15, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
        callbacks=[best, EarlyStopping("val/acc", mode="max", patience=20)], logger=CSVLogger(folder),
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    # all samples in a batch: Lightning shuffles training samples where it adds a sampler
    loaders = DataLoader(train, batch_size=160 // devices), DataLoader(validation, batch_size=32 // devices)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trainer.fit(kd.Distiller(teacher, member), *loaders)
    teacher.verify()
    return {
        "weights": {name: value.tolist() for name, value in student.state_dict().items()},
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "best": [
            float(best.best_model_score),
            sorted(torch.load(best.best_model_path, weights_only=True)["state_dict"]),
        ],
        "steps": trainer.global_step,
        "warned": [str(w.message) for w in warned if "sync_dist" in str(w.message) or "kd_lightning" in w.filename],
    }


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=300, env=environment)
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert zero == one
    alone = trained(tmp_path / "alone", devices=1)
    assert zero["steps"] == alone["steps"] == 15
    assert zero["warned"] == alone["warned"] == []
    assert zero["metrics"].keys() == alone["metrics"].keys() >= {"val/acc", "val/agreement", "val/teacher_acc"}
    assert zero["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    assert zero["best"][0] == pytest.approx(alone["best"][0])
    assert zero["best"][1] == alone["best"][1]
    for name, value in alone["weights"].items():
        torch.testing.assert_close(torch.tensor(zero["weights"][name]), torch.tensor(value), rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    found = trained(Path(sys.argv[1]), devices=2)
    rank = torch.distributed.get_rank()
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()  # its threads may not outlive the interpreter
