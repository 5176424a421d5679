"""A student that was evaluated last is trained as one that was not; layers in eval mode within it stay so."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.distiller import Distiller
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.tasks.classification import ClassificationTask


def batches_counted(student: nn.Sequential) -> int:
    member = Member(student, Method(None, {"task": 1.0}), ClassificationTask(), optimizer=torch.optim.SGD)
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    )  # fmt: skip
    samples = TensorDataset(torch.rand(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3)
    trainer.fit(Distiller(None, member), DataLoader(samples, batch_size=8))
    return int(student[1].num_batches_tracked)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def test_a_whole_student_in_eval_mode_is_put_into_training_mode():
    assert batches_counted(network().eval()) == batches_counted(network()) == 3


def test_a_layer_that_somebody_froze_by_eval_stays_so():
    student = network()
    student[1].eval()
    assert batches_counted(student) == 0
