"""Validation and test data of one's own, looked at before anything is trained: are they like the training samples, and new?"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from kd_lightning.data.first_look import FirstLook
from kd_lightning.data.items import ItemForm
from kd_lightning.data.labels import Labels
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.data.same_scale import other_scale
from kd_lightning.data.sample_data import Items
from kd_lightning.data.targets import kept_targets
from kd_lightning.errors import UserError

SAME = "these are the training samples: what is measured on them says nothing of new ones"


def require_alike(key: str, dataset: Any, train: Any, form: ItemForm, look: FirstLook, labels: Labels) -> str | None:
    """Look at the first sample, and at the labels where the data set keeps them beside its samples.

    Args:
        key: the data set's config key.
        dataset: validation or test samples.
        train: the training data set.
        form: how items are taken apart.
        look: what the training samples' first items told.
        labels: what the training targets mean.

    Returns:
        What a user should know; None: nothing.

    Raises:
        UserError: they are not what the training samples are.
    """
    items = Items(dataset, key)
    inputs, target = form.split(items(0))
    if form.collate_fn is None:
        (shape, kind), (wanted, own) = form_of(inputs), form_of(look.first)
        if shape != wanted:
            raise UserError(f"{key}: inputs have the shape {shape}, those of data.train {wanted}")
        if kind != own and look.inputs.input_type is None:  # bytes become [0, 1], other numbers stay
            raise UserError(f"{key}: inputs are of type {kind}, those of data.train {own}: give both alike")
        _require_like_target(key, target, look.target, labels)
    kept = kept_targets(dataset, form, items, items.rows)
    if kept is not None:
        labels.of(key).encode(kept, items.rows)
    if dataset is train or _same_tensors(train, dataset):
        tell_once(f"WARNING: {key}: {SAME}", logging.WARNING)
        return f"{key}: {SAME}"
    note = other_scale(key, dataset, train, form, look.inputs)
    if note is not None:
        tell_once(f"WARNING: {note}", logging.WARNING)
    return note


def _require_like_target(key: str, target: Any, own: Any, labels: Labels) -> None:
    """One-hot rows beside class numbers would be compared with each other only after the training."""
    if not all(isinstance(value, (Tensor, np.ndarray, np.generic, int, float)) for value in (target, own)):
        return
    shape, wanted = (tuple(getattr(value, "shape", ())) for value in (target, own))
    alike = shape == wanted if len(wanted) <= 1 else len(shape) == len(wanted)  # masks may be of several sizes
    if labels.kind != "none" and not alike and {shape, wanted} != {(), (1,)}:  # a column is one number a sample
        raise UserError(
            f"{key}: a target has the shape {shape}, one of data.train {wanted}: give both alike (class numbers have (), "
            "one-hot rows (C,))"
        )


def form_of(value: Any) -> tuple[tuple[int, ...] | None, str | None]:
    """Shape and kind of number of a sample's inputs: floats of any width are one kind, every other type is its own."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.empty(value.shape, value.dtype)) if value.dtype.kind in "biuf" else value
    if not isinstance(value, Tensor):
        return None, None
    return tuple(value.shape), "float" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")


def _same_tensors(train: Any, other: Any) -> bool:
    if not (isinstance(train, TensorDataset) and isinstance(other, TensorDataset)):
        return False
    mine, theirs = train.tensors[0], other.tensors[0]
    return mine.shape == theirs.shape and mine.dtype == theirs.dtype and torch.equal(mine, theirs)
