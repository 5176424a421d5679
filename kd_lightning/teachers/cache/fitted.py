"""What the rows of a cache are read with, where their form was fitted to the teacher's answers: one array beside them.

It is fitted once, by whoever writes the first view, to answers to samples of view 0 that are drawn from all of them, and
never changes: rows of later views are written and read with the same. The array is under a checksum and belongs to one
cache, as views do.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from kd_lightning.batch import Batch
from kd_lightning.joints import Teacher
from kd_lightning.teachers.cache.forms import FittedForm, LogitsForm
from kd_lightning.teachers.cache.store import CacheStore

SAMPLES, NUMBERS = 16_384, 20_000_000  # at most so many samples, and logits of them all
_BATCH = 256


def use_fitted(store: CacheStore, form: LogitsForm) -> None:
    """Give a form what its rows were written with.

    Raises:
        CacheError: it is missing or damaged.
    """
    if isinstance(form, FittedForm):
        form.use(torch.from_numpy(np.load(io.BytesIO(store.fitted()), allow_pickle=False)))


def ensure_fitted(store: CacheStore, form: LogitsForm, teacher: Teacher, dataset: Any, device: torch.device) -> None:
    """Fit a form that is to be fitted, unless a view was written with it; only for who holds the lock."""
    if not isinstance(form, FittedForm):
        return
    if not store.views():
        file = io.BytesIO()
        np.save(file, form.fit(_answers(teacher, dataset, device)).cpu().numpy())
        store.write_fitted(file.getvalue())
    use_fitted(store, form)


def _answers(teacher: Teacher, dataset: Any, device: torch.device) -> torch.Tensor:
    """Logits (n, C) of samples of view 0."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    rows: list[torch.Tensor] = []
    wanted = min(SAMPLES, len(order))
    for index in order[:SAMPLES].split(_BATCH):
        inputs, target = dataset.read(index, 0)
        batch = move_data_to_device(Batch(inputs, target, index, 0, "train"), device)
        rows.append(teacher(batch).logits.detach().float())
        wanted = min(wanted, max(_BATCH, NUMBERS // rows[0].shape[1]))
        if sum(map(len, rows)) >= wanted:
            break
    return torch.cat(rows)
