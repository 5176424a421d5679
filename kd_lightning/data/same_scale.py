"""Whether validation or test inputs were made as the training inputs: in the same unit, normalised or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.inputs import Inputs
from kd_lightning.data.items import ItemForm
from kd_lightning.data.sample_data import Items

LOOKED_AT = 64
"""So many samples of each are looked at, evenly spread."""
APART = 5.0
"""So many times as large, or small, are inputs in another unit; the same inputs elsewhere hardly are."""
NEGATIVE = 0.1
"""The share of values below 0 that inputs of another normalisation have at least, where the others have none."""


def other_scale(key: str, dataset: Any, train: Any, form: ItemForm, inputs: Inputs) -> str | None:
    """What a user should know of inputs that are of another size, or another sign, than the training inputs; None: nothing.

    Args:
        key: the data set's config key.
        dataset: validation or test samples.
        train: the training data set.
        form: how items are taken apart.
        inputs: how they are cast.
    """
    theirs, own = (_values(Items(found, name), form, inputs) for found, name in ((dataset, key), (train, "data.train")))
    if theirs is None or own is None:
        return None
    large, usual = theirs.abs().quantile(0.9).item(), own.abs().quantile(0.9).item()
    alike = "were they made in the same way, in the same unit?"
    if large > 0 and usual > 0 and not 1 / APART < large / usual < APART:
        return (
            f"{key}: nine of ten input values are within {large:.3g}, those of data.train within {usual:.3g}: {alike}"
        )
    below, usually = ((found < 0).double().mean().item() for found in (theirs, own))
    if (below > NEGATIVE and usually == 0) or (usually > NEGATIVE and below == 0):
        return f"{key}: {below:.0%} of the input values are below 0, {usually:.0%} of those of data.train: {alike}"
    return None


def _values(items: Items, form: ItemForm, inputs: Inputs) -> Tensor | None:
    """Numbers of some of the samples, one row; None where inputs are no single tensor of floats."""
    rows = torch.linspace(0, items.rows - 1, min(LOOKED_AT, items.rows), dtype=torch.float64).round().long()
    found = []
    for row in rows.tolist():
        batch = form.batch([items(row)])[0]
        cast: Any = inputs.cast(batch)
        if not isinstance(cast, Tensor) or not cast.is_floating_point():
            return None
        found.append(cast.double().flatten()[:: max(1, cast.numel() // 4096)])
    values = torch.cat(found)
    values = values[values.isfinite()]
    return values if len(values) else None
