"""What a run's own callbacks keep between steps, so that an interrupted run goes on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl


class CallbackStates(pl.Callback):
    """Collects the states of callbacks (averaged weights, counts) for the run's checkpoint, and gives them back.

    Lightning keeps them in its own checkpoints, which a run does not use.

    Args:
        callbacks: those of the run's configuration.
        saved: what :meth:`collect` gave when the run was interrupted; None for a new run.
    """

    def __init__(self, callbacks: Sequence[pl.Callback], saved: Mapping[str, Any] | None) -> None:
        self._callbacks = list(callbacks)
        self._saved = saved
        self._run: tuple[pl.Trainer, pl.LightningModule] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run = (trainer, pl_module)
        if self._saved is None:
            return
        for callback in self._callbacks:
            state = self._saved["states"].get(callback.state_key)
            if state is not None:
                callback.load_state_dict(state)
            if self._saved["beside"] is not None:
                callback.on_load_checkpoint(trainer, pl_module, self._saved["beside"])

    def collect(self) -> dict[str, Any]:
        """The states now: ``states`` by callback, ``beside`` what callbacks add to a checkpoint, None where nothing."""
        if self._run is None:
            raise RuntimeError("the run has not started")
        trainer, module = self._run
        weights = module.state_dict()
        beside: dict[str, Any] = {"state_dict": weights}
        for callback in self._callbacks:
            callback.on_save_checkpoint(trainer, module, beside)
        changed = len(beside) > 1 or beside["state_dict"] is not weights
        states = {callback.state_key: callback.state_dict() for callback in self._callbacks}
        return {"states": {key: state for key, state in states.items() if state}, "beside": beside if changed else None}
