"""A Trainer that is put into the middle of a run does exactly the steps that are left."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kd_lightning.callbacks.fast_forward import FastForward
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.runs.spec import Progress

BATCHES, EPOCHS = 5, 3


class Notes(pl.LightningModule):
    """Notes what Lightning calls it with, and where the counters stand."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[int, int, int, list[int], bool]] = []
        self.validated: list[int] = []
        self.ended: list[int] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        self.optimizers().step()
        indices = batch[0].flatten().long().tolist()
        self.seen.append((self.current_epoch, batch_idx, self.global_step, indices, self.trainer.is_last_batch))

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.current_epoch)

    def on_train_epoch_end(self):
        self.ended.append(self.current_epoch)


def fit(place: Progress | None, state: dict | None = None) -> tuple[Notes, ThreadedLoader]:
    data = [(torch.tensor([float(i)]), 0) for i in range(2 * BATCHES)]
    loader = ThreadedLoader(data, batch_size=2, shuffle=True, seed=7, num_threads=1)
    validation = ThreadedLoader(data[:2], batch_size=2, num_threads=1)
    if state is not None:
        loader.load_state_dict(state)
    notes = Notes()
    trainer = pl.Trainer(
        max_epochs=EPOCHS, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[FastForward(place)] if place else [],
    )  # fmt: skip
    trainer.fit(notes, loader, validation)
    loader.close()
    validation.close()
    return notes, loader


def state_at(epoch: int, batch: int) -> dict:
    """The loader's state as a run saves it."""
    loader = ThreadedLoader(
        [(torch.tensor([float(i)]), 0) for i in range(2 * BATCHES)], batch_size=2, shuffle=True, seed=7, num_threads=1
    )
    loader.set_epoch(epoch)
    batches = iter(loader)
    for _ in range(batch):
        next(batches)
    state = loader.state_dict()
    loader.close()
    return state


@pytest.mark.parametrize(("epoch", "batch"), [(0, 1), (0, 4), (1, 0), (1, 2), (2, 4), (2, 0)])
def test_the_rest_is_what_an_undisturbed_trainer_does_there(epoch, batch):
    whole, _ = fit(None)
    assert len(whole.seen) == BATCHES * EPOCHS
    done = epoch * BATCHES + batch
    rest, _ = fit(Progress(epoch, batch, done), state_at(epoch, batch) if batch else None)
    assert rest.seen == whole.seen[done:]
    assert rest.validated == whole.validated[epoch:]
    assert rest.ended == whole.ended[epoch:]


def test_a_finished_run_has_nothing_left():
    rest, _ = fit(Progress(EPOCHS, 0, BATCHES * EPOCHS))
    assert rest.seen == []
    assert rest.validated == []
