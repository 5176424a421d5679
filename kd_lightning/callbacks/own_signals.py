"""SIGTERM in data-parallel training: ours to handle, and to agree on between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytorch_lightning as pl

Handler = Any  # a function of a number and a frame, or one of the signal module's constants


class OwnSignals(pl.Callback):
    """Puts the handler back that was there before a Trainer of several processes took its place.

    Lightning's sends a message to the other processes out of the handler, in the middle of whatever the process is
    doing: both wait for ever if that is an exchange too.
    """

    def __init__(self) -> None:
        self._before: Handler = signal.SIG_DFL

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_back(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_back(trainer)

    def _put_back(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)
