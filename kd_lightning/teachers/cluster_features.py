"""What is clustered of a sample: its own values or an encoder's features, whole or on their main directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.data.samples import by_themselves
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput

READ_AT_ONCE = 512


class Features:
    """What is clustered of a sample: rows (N, D), float32.

    Args:
        encoder: whose features they are; None: the samples' own values.
        layer: of the encoder; None: its output. Maps and tokens are averaged.
    """

    def __init__(self, encoder: Teacher | None, layer: str | None) -> None:
        self.encoder, self.layer = encoder, layer
        self.mean: Tensor | None = None
        self.directions: Tensor | None = None

    def raw(self, batch: Batch) -> Tensor:
        """Of a batch, before the projection."""
        if self.encoder is None:
            if not isinstance(batch.inputs, Tensor):
                raise UserError(
                    f"teacher.encoder: samples that are {type(batch.inputs).__name__} cannot be clustered as they are: give an encoder"
                )
            return batch.inputs.flatten(1).float()
        return self.of_answer(self.encoder(batch))

    def of_answer(self, answer: ModelOutput) -> Tensor:
        """Of the encoder's output."""
        values = answer.logits if self.layer is None else answer.features[self.layer]
        if values.dim() == 3:
            values = values.mean(1)
        return values.flatten(2).mean(2).float() if values.dim() > 2 else values.float()

    def __call__(self, batch: Batch) -> Tensor:
        rows = self.raw(batch)
        if self.directions is None or self.mean is None:
            return rows
        return (rows - self.mean.to(rows.device)) @ self.directions.to(rows.device)

    def of_training(self, data: Any, most: int | None) -> np.ndarray:
        """Of the training samples as they are without augmentation of their own (view 0), in their order."""
        dataset = by_themselves(data.train_views_dataset)
        count = len(dataset) if most is None else min(most, len(dataset))
        parts = []
        for start in range(0, count, READ_AT_ONCE):
            index = torch.arange(start, min(start + READ_AT_ONCE, count))
            inputs, target = dataset.read(index, 0)
            parts.append(self.raw(Batch(inputs, target, index)).cpu())
        return torch.cat(parts).numpy()

    def reduce(self, rows: np.ndarray, components: int, where: str) -> None:
        """Project onto the main directions of some rows from now on."""
        if components > min(rows.shape):
            raise UserError(f"{where}={components} is more than {rows.shape[0]} samples of {rows.shape[1]} values have")
        values = torch.from_numpy(rows).double()
        mean = values.mean(0)
        _, _, directions = torch.linalg.svd(values - mean, full_matrices=False)
        self.mean, self.directions = mean.float(), directions[:components].T.float()

    def projected(self, rows: np.ndarray) -> np.ndarray:
        """Rows on those directions."""
        assert self.mean is not None
        assert self.directions is not None
        return ((torch.from_numpy(rows) - self.mean) @ self.directions).numpy()
