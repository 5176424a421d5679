"""Stored teacher outputs in the teacher's place: each view of each sample is shown to the teacher once, then read.

Possible because an augmented view is a function of (seed, view, index). What is stored is keyed by everything that the
outputs depend on (teacher, data, transform and augmentation, precision), sealed by checksums, and compared with the
live teacher on some rows whenever it is opened: a run reads the right numbers or stops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.data.loader.threaded_loader import LoaderTimeout, SampleError
from kd_lightning.data.module import read_samples
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cache.rows import NotCacheable, RowCodec
from kd_lightning.teachers.cache.size import human, require_space
from kd_lightning.teachers.cache.store import CacheError, CacheStore, cache_key
from kd_lightning.teachers.cache.writer import Announce, ensure_views, move_data_to_device

VERIFY_AT_OPENING_BYTES = 2 << 30  # more than that is verified view by view, when first read
RECHECKED_ROWS = 64


class CachedTeacher:
    """A teacher that answers training batches from its stored outputs, and asks the live one where there are none.

    Positions in different splits mean different samples, and a batch does not tell its split: use this for *training*
    batches only (the Distiller's ``training_teacher``) and the plain teacher for evaluation. Features are not stored.

    Everything else (``fingerprint()``, ``parameters_count``, …) is the live teacher's.
    """

    def __init__(self, teacher: Any, store: CacheStore, codec: RowCodec, views: Sequence[int]) -> None:
        self.teacher, self.store = teacher, store
        self._codec, self._views = codec, frozenset(views)
        self._rows: dict[int, Tensor] = {}

    def __call__(self, batch: Batch) -> ModelOutput:
        """Logits of shape (N, C), float32, on the device of the batch's index."""
        if batch.index is None or batch.view not in self._views:
            return self.teacher(batch)
        index = batch.index
        try:
            rows = self.rows(batch.view).index_select(0, index.cpu())
        except IndexError:
            raise UserError(
                f"teacher cache {self.store.directory}: sample {int(index.max())} is not among its "
                f"{self.store.samples} training samples; a cached teacher answers for training batches only"
            ) from None
        return (
            move_data_to_device(self._codec.decode(rows), index.device) if index.is_cuda else self._codec.decode(rows)
        )

    def rows(self, view: int) -> Tensor:
        """The stored rows of a view, uint8 of shape (samples, row bytes), verified when first asked for."""
        if view not in self._rows:
            self._rows[view] = torch.from_numpy(self.store.rows(view))
        return self._rows[view]

    def to(self, device: torch.device | str) -> CachedTeacher:
        self.teacher.to(device)
        return self

    def __getattr__(self, name: str) -> Any:
        if name == "teacher":  # not there yet: a copy or an unpickled object in the making
            raise AttributeError(name)
        return getattr(self.teacher, name)

    def recheck(self, dataset: Any, device: torch.device, count: int = RECHECKED_ROWS) -> None:
        """Compare about ``count`` stored rows, over at most four views, with what the live teacher says.

        Raises:
            CacheError: they differ by more than rounding (another precision, machine or batch size may cause).
        """
        views = sorted(self._views)
        chosen = [views[i] for i in sorted({round(i * (len(views) - 1) / 3) for i in range(4)})]
        for view in chosen:
            generator = torch.Generator().manual_seed(view)
            index = torch.randint(self.store.samples, (max(1, count // len(chosen)),), generator=generator)
            batch = Batch(*read_samples(dataset, index, view), index, view)
            live = self.teacher(move_data_to_device(batch, device)).logits.float().cpu()
            stored = self(batch).logits
            wrong = int((deviation(live, stored, self._codec.top_k) > self._tolerance).sum())
            if wrong:
                raise CacheError(
                    f"{self.store.paths(view)[0]}: {wrong} of {len(index)} rows are not what the teacher says now "
                    "(rows in another order, or a model whose code changed): delete the directory with kd-cache prune"
                )

    @property
    def _tolerance(self) -> float:
        coarse = "bf16" in (self._codec.precision, getattr(self.teacher, "precision", None))
        return 5e-2 if coarse else 5e-3


def deviation(live: Tensor, stored: Tensor, top_k: int | None) -> Tensor:
    """Largest difference of each sample's logits, shape (N,), relative to 1 + its largest logit.

    With ``top_k`` only the classes that were kept are compared: the others are approximated by intention.
    """
    if top_k is not None:
        kept = stored.topk(top_k, dim=1).indices
        live, stored = live.gather(1, kept), stored.gather(1, kept)
    live, stored = live.reshape(len(live), -1), stored.reshape(len(stored), -1)
    return (live - stored).abs().amax(1) / (1 + live.abs().amax(1))


def open_or_write_cache(
    teacher: Any,
    datamodule: Any,
    mode: str | bool | None = "auto",
    *,
    directory: str | Path = "outputs/cache",
    epochs: int | None,
    expected_passes: float | None = None,
    precision: str = "fp16",
    top_k: int | None = None,
    limit_gb: float | None = 2.0,
    needs_features: bool = False,
    announce: Announce | None = None,
) -> Any:
    """The teacher for training batches: a CachedTeacher, or ``teacher`` itself where a cache is off or does not help.

    Which views a run sees is the data module's affair and is the same with and without a cache: one (``views=1``), K
    cycled, or a fresh one each epoch (``views=0``: as many as epochs).

    Args:
        teacher: a live teacher, on the device on which it is to write.
        datamodule: a DistillationDataModule, set up.
        mode: ``"auto"``: read a complete cache, write one if that saves forward passes, say why if neither; ``"off"``;
            or the directory of the caches (or of one cache): always write, and what prevents that is an error.
        directory: of the caches where ``mode`` is "auto"; each has a subdirectory by its key.
        epochs: the run's (a group's) longest.
        expected_passes: forward passes over the training data that the teacher would make without a cache, in all runs
            to come together (runs in lockstep count once); by default ``epochs``.
        precision: of storage: "fp16", "bf16" or "fp32".
        top_k: keep only so many logits of each sample (for thousands of classes); None keeps all.
        limit_gb: largest size of one cache, in 10^9 bytes; None: no limit.
        needs_features: the method looks at the teacher's features, which are not stored.
        announce: called with what a user should know, one line each; by default this module's logger.

    Raises:
        CacheError: stored outputs are damaged, or not what the teacher says.
        UserError: ``mode`` is a directory and the outputs cannot be cached there.
    """
    announce = announce or logging.getLogger(__name__).info
    if mode in ("off", False, None):
        return teacher
    explicit = mode not in ("auto", True)

    def off(reason: str) -> Any:
        if explicit:
            raise UserError(f"teacher.cache={mode}: {reason}; set teacher.cache=off")
        announce(f"teacher cache: off, {reason}")
        return teacher

    if needs_features:
        return off("the method uses the teacher's features, and only logits are stored")
    views = planned_views(datamodule.views, epochs)
    if not views:
        return off("every epoch has fresh views and the number of epochs is not known")
    dataset, device = datamodule.train_views_dataset, torch.device(getattr(teacher, "device", "cpu"))
    codec = RowCodec(teacher(move_data_to_device(datamodule.example_batch(), device)), precision, top_k)
    parts = cache_parts(teacher, datamodule, codec)
    path = Path(mode if explicit else directory)
    if not (path / "meta.json").exists():  # the directory of the caches, not one cache that was named itself
        path = path / cache_key(parts)
    size = (sum(column.nbytes for column in codec.columns) * len(dataset) + 4096) * len(views)
    described = f"{len(views)} view{'s' * (len(views) > 1)} of {len(dataset)} samples, {human(size)} in {precision}"
    present = set()
    if (path / "meta.json").exists():
        store = CacheStore(path)
        store.require(parts)
        present.update(store.views())
    missing = [view for view in views if view not in present]
    passes = epochs if expected_passes is None else expected_passes
    if missing and not explicit and passes is not None and passes <= len(views):
        return off(
            f"{len(views)} views would be written to save {passes:g} passes (a directory writes it all the same)"
        )
    if missing and limit_gb is not None and size > limit_gb * 1e9:
        hint = "" if codec.top_k or codec.classes < 100 else ", or keep teacher.cache_top_k logits"
        return off(f"{described} is above teacher.cache_limit_gb={limit_gb:g}: raise it{hint}")
    try:
        if missing:
            require_space(path, size * len(missing) // len(views))
            announce(f"teacher cache: writing {described}: {path} ({len(missing)} to do)")
            loader = datamodule.train_dataloader()
            loading = {key: getattr(loader, key) for key in ("batch_size", "num_threads", "timeout", "collate_fn")}
            ensure_views(
                teacher, path, parts, codec, dataset, missing, loading=loading, device=device, announce=announce
            )
    except NotCacheable as error:
        return off(str(error))
    except (SampleError, LoaderTimeout):
        raise  # the data cannot be read, which is not the cache's affair (a timeout is an OSError too)
    except OSError as error:
        return off(f"{error.filename or path} cannot be written ({error.strerror or error})")
    store = CacheStore(path)
    cached = CachedTeacher(teacher, store, codec, views)
    for view in views if size <= VERIFY_AT_OPENING_BYTES else views[:1]:
        cached.rows(view)
    cached.recheck(dataset, device)
    store.touch()
    announce(f"teacher cache: reading {described}: {path}")
    return cached


def planned_views(views: int, epochs: int | None) -> list[int]:
    """The views that a run of ``epochs`` sees; none where that is not known."""
    if views == 0:
        return list(range(epochs or 0))
    return list(range(min(views, epochs or views)))


def cache_parts(teacher: Any, datamodule: Any, codec: RowCodec) -> dict[str, Any]:
    """Everything that stored rows depend on, by name; two caches with equal parts are the same."""
    own = teacher.cache_parts() if hasattr(teacher, "cache_parts") else {"weights": teacher.fingerprint()}
    return {
        "teacher": own,
        "data": datamodule.data_fingerprint(),
        "views": datamodule.view_fingerprint(),
        "samples": len(datamodule.train_views_dataset),
        "precision": codec.precision,
        "top_k": codec.top_k,
        "columns": [[column.name, column.dtype, list(column.shape)] for column in codec.columns],
    }
