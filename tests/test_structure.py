"""A change reaches every leaf of a structure and keeps the structure."""

from __future__ import annotations

import torch

from kd_lightning.batch import Batch
from kd_lightning.outputs import ModelOutput
from kd_lightning.structure import mapped


def test_every_tensor_is_changed_and_the_structure_stays():
    batch = Batch({"ids": torch.ones(2), "text": ["a", "b"]}, (torch.zeros(2), None), torch.arange(2), 3, "train")
    changed = mapped(batch, lambda leaf: leaf + 1 if isinstance(leaf, torch.Tensor) else leaf)
    assert isinstance(changed, Batch)
    assert changed.inputs["ids"].tolist() == [2, 2]
    assert changed.inputs["text"] == ["a", "b"]
    assert changed.target[0].tolist() == [1, 1]
    assert (changed.target[1], changed.view, changed.split) == (None, 3, "train")
    output = mapped(
        ModelOutput(torch.ones(2, 3), {"tap": torch.ones(2)}), lambda leaf: leaf if leaf is None else leaf * 2
    )
    assert isinstance(output, ModelOutput)
    assert output.features["tap"].tolist() == [2, 2]
