"""Why a loss is not finite: the inputs themselves, where some of them are not."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.loader.errors import describe
from kd_lightning.structure import mapped


def inputs_not_finite(datamodule: Any, batches: int) -> str | None:
    """Which sample's inputs hold nan or inf; None where those of none that was read do.

    Reads the batches of the first epoch again, up to the step at which the loss was not finite, then those of validation:
    no more than the run did.

    Args:
        datamodule: of the run.
        batches: that were trained on, >= 0; with 0 only those of validation are read.
    """
    read: list[tuple[Any, int | None]] = [(datamodule.train_dataloader(), batches)]
    if datamodule.val_samples:
        read.append((datamodule.val_dataloader(), None))
    for loader, most in read:
        try:
            for batch in itertools.islice(loader, most):
                samples = sorted(batch.index[_rows_not_finite(batch.inputs, batch.size)].tolist())
                if samples:
                    more = f" (and of {len(samples) - 1} more of its batch)" if len(samples) > 1 else ""
                    return f"the inputs of {describe(loader.dataset, samples[0])}{more} hold nan or inf"
        finally:
            loader.close()
    return None


def _rows_not_finite(inputs: Any, size: int) -> Tensor:
    found = torch.zeros(size, dtype=torch.bool)

    def look(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() and len(value) == size:
            found.logical_or_(~value.flatten(1).isfinite().all(1) if value.dim() > 1 else ~value.isfinite())
        return value

    mapped(inputs, look)
    return found
