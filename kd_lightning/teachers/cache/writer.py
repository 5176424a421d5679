"""Writes a teacher's outputs into a cache: whoever comes first does it, the others wait and read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric.utilities.apply_func import move_data_to_device

from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.joints import Teacher
from kd_lightning.teachers.cache.fitted import ensure_fitted
from kd_lightning.teachers.cache.forms import NotCacheable
from kd_lightning.teachers.cache.marks import input_marks
from kd_lightning.teachers.cache.rows import RowCodec
from kd_lightning.teachers.cache.store import CacheStore, ViewWriter, remove_leftovers

Announce = Callable[[str], None]

SILENCE = 15.0
"""Seconds until a writer first says how far it is; then at twice the time each: a slow teacher is seen to be at work."""


def ensure_views(
    teacher: Teacher,
    directory: Path,
    parts: dict[str, Any],
    codec: RowCodec,
    dataset: Any,
    views: Sequence[int],
    *,
    loading: dict[str, Any],
    device: torch.device,
    announce: Announce,
) -> CacheStore:
    """The store in ``directory`` with all ``views``, writing under a lock those that are missing.

    The rows of a view are computed in the order of the data set, in batches of one size: what is stored does not depend
    on the run that wrote it. ``loading`` are arguments of the ThreadedLoader (batch size, threads, …); its timeout
    matters, since others wait for a writer. A lock whose holder was killed is free (the kernel releases it).

    Raises:
        CacheError: what is there already is damaged or of something else.
        NotCacheable: the data set or the teacher's answers do not allow it.
        OSError: the directory cannot be written; views written so far stay usable.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.with_name(directory.name + ".lock"))
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        announce(f"teacher cache: another process is writing {directory}: waiting for it")
        lock.acquire(poll_interval=0.2)
    try:
        if (directory / "meta.json").exists():
            store = CacheStore(directory)
            store.require(parts)
        else:
            store = CacheStore.create(directory, parts, len(dataset), codec.columns)
        remove_leftovers(directory)
        ensure_fitted(store, codec.form, teacher, dataset, device)
        present = set(store.views())
        missing = [view for view in views if view not in present]
        progress = _Progress(len(missing) * len(dataset), announce)
        for view in missing:
            _write_view(teacher, store, codec, dataset, view, loading, device, progress)
        if missing:
            announce(f"teacher cache: written in {progress.seconds:.1f} s")
    finally:
        lock.release()
    return store


def _write_view(
    teacher: Teacher,
    store: CacheStore,
    codec: RowCodec,
    dataset: Any,
    view: int,
    loading: dict[str, Any],
    device: torch.device,
    progress: _Progress,
) -> None:
    """Ask the teacher about every sample of one view, and store the answers."""
    loader = ThreadedLoader(
        dataset, as_batch=True, split="train", views=0, rank=0, num_replicas=1, pad_shards=False, **loading
    )
    loader.set_epoch(view)
    expected = 0
    with loader, ViewWriter(store, view) as writer:
        for batch in loader:
            index = batch.index
            if index is None or not torch.equal(index.cpu(), torch.arange(expected, expected + len(index))):
                raise NotCacheable("the data set skips or reorders samples, so that outputs cannot be told apart")
            answer = teacher(move_data_to_device(batch, device))
            writer.append(codec.encode(answer, input_marks(batch.inputs)).numpy())
            expected += len(index)
            progress.add(len(index))


class _Progress:
    """Says now and then how many of so many answers are there, and how long the others will take."""

    def __init__(self, answers: int, announce: Announce) -> None:
        self._answers, self._announce = answers, announce
        self._done, self._next, self._started = 0, SILENCE, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._started

    def add(self, answers: int) -> None:
        """So many more are there."""
        self._done += answers
        spent = self.seconds
        if spent < self._next or self._done >= self._answers:
            return
        self._next = 2 * spent
        minutes, seconds = divmod(round(spent / self._done * (self._answers - self._done)), 60)
        self._announce(
            f"teacher cache: {self._done:,} of {self._answers:,} answers, about {minutes}:{seconds:02d} left"
        )
