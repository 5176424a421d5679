"""Put a Trainer where a run stopped, before its first batch."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from kd_lightning.runs.spec import Progress


class FastForward(pl.Callback):
    """Sets the Trainer's counters of epochs, batches and optimizer steps at the start of ``fit``.

    Lightning's own ``ckpt_path`` does this from one checkpoint of the whole module; members of a group have one each,
    and they all stand at the same place.

    Args:
        progress: that place.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        place, loop = self.progress, trainer.fit_loop
        steps = loop.epoch_loop.manual_optimization.optim_step_progress.total
        steps.ready = steps.completed = place.step
        loop.epoch_loop._batches_that_stepped = place.step
        counter: Any  # Lightning's trackers differ by loop in what they count
        for counter in (loop.epoch_progress.current, loop.epoch_progress.total):
            counter.ready = counter.started = counter.processed = counter.completed = place.epoch
            if place.batch:  # the epoch has begun and has not been processed
                counter.ready = counter.started = place.epoch + 1
        if place.batch:
            for counter in (loop.epoch_loop.batch_progress.current, loop.epoch_loop.batch_progress.total):
                counter.ready = counter.started = counter.processed = counter.completed = place.batch
            loop.restarting = True
