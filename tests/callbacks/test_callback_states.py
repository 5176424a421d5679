"""Callbacks that keep something: an interrupted run goes on with it."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from test_distiller import DropNet, Notebook, ReferenceNet, data, member, seeded
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.data import DataLoader

from kd_lightning.callbacks.fast_forward import FastForward
from kd_lightning.callbacks.states import CallbackStates
from kd_lightning.distiller import Distiller
from kd_lightning.runs.checkpoint import load_checkpoint, save_checkpoint
from kd_lightning.runs.spec import Progress
from kd_lightning.teachers.frozen import FrozenTeacher


class Counts(pl.Callback):
    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, *_):
        self.batches += 1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


def run(teacher, epochs, path=None, continued=False):
    """Train to the end of an epoch; the whole state goes through a file."""
    saved = load_checkpoint(path) if continued else None
    trained = member(seeded(DropNet, 1))
    place = Progress()
    if saved is not None:
        trained.load_state_dict(saved["weights"])
        trained.load_training_state(saved["training"])
        place = Progress(saved["epoch"], 0, saved["step"])
    own = [WeightAveraging(avg_fn=get_ema_avg_fn(0.9)), Counts()]
    states = CallbackStates(own, saved["callbacks"] if saved is not None else None)

    class Saves(Notebook):
        def save(self, member, epoch, batch, step):
            if path is not None:
                content = {
                    "weights": member.weights(),
                    "training": member.training_state(),
                    "epoch": epoch,
                    "step": step,
                }
                save_checkpoint(path, content | {"callbacks": states.collect()})

    t = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[FastForward(place), states, *own],
    )  # fmt: skip
    loaders = [DataLoader(data(4), batch_size=None), DataLoader(data(1, seed=1), batch_size=None)]
    t.fit(Distiller(teacher, trained, [Saves()]), *loaders)
    return trained, own[1].batches


def test_an_average_of_the_weights_and_a_count_are_continued(teacher, tmp_path):
    whole, batches = run(teacher, 4)
    run(teacher, 2, tmp_path / "last.ckpt")
    again, continued = run(teacher, 4, tmp_path / "last.ckpt", continued=True)
    assert batches == continued == 16
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[name]), name
