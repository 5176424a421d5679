"""Is there a cache of a teacher's answers, does one pay, and where: opened or written in front of the teacher."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch

from kd_lightning.data.loader.threaded_loader import LoaderTimeout, SampleError
from kd_lightning.errors import UserError
from kd_lightning.joints import LOGITS, Teacher
from kd_lightning.teachers.cache.approximate import APPROXIMATE, SIX_BIT
from kd_lightning.teachers.cache.cached import CachedTeacher, require_equal_readings
from kd_lightning.teachers.cache.fitted import use_fitted
from kd_lightning.teachers.cache.forms import NotCacheable
from kd_lightning.teachers.cache.rows import RowCodec
from kd_lightning.teachers.cache.size import human, require_space
from kd_lightning.teachers.cache.store import CacheStore, cache_key
from kd_lightning.teachers.cache.writer import Announce, ensure_views, move_data_to_device

log = logging.getLogger(__name__)

VERIFY_AT_OPENING_BYTES = 2 << 30  # more than that is verified view by view, when first read


def open_or_write_cache(
    teacher: Teacher,
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
    device: torch.device | str = "cpu",
    announce: Announce | None = None,
) -> Teacher:
    """A CachedTeacher in front of the teacher, or ``teacher`` itself where a cache is off or does not help.

    Which views a run sees is the data module's affair and is the same with and without a cache: one (``views=1``), K
    cycled, or a fresh one each epoch (``views=0``: as many as epochs).

    Args:
        teacher: a live teacher.
        datamodule: a DistillationDataModule, set up.
        mode: ``"auto"``: read a complete cache, write one if that saves forward passes, say why if neither; ``"off"``;
            or the directory of the caches (or of one cache): always write, and what prevents that is an error.
        directory: of the caches where ``mode`` is "auto"; each has a subdirectory by its key.
        epochs: the run's (a group's) longest.
        expected_passes: forward passes over the training data that the teacher would make without a cache, in all runs
            to come together (runs in lockstep count once); by default ``epochs``.
        precision: of storage: "fp16", "bf16", "fp32", or of logits of classes "6bit" or "scores".
        top_k: keep only so many logits of each sample (for thousands of classes); None keeps all.
        limit_gb: largest size of one cache, in 10^9 bytes; None: no limit.
        needs_features: the method looks at the teacher's features, which are not stored.
        device: on which the teacher answers what is to be stored; it is moved there.
        announce: called with what a user should know, one line each; by default this module's logger.

    Raises:
        CacheError: stored outputs are damaged, or not what the teacher says.
        UserError: ``mode`` is a directory and the outputs cannot be cached there.
    """
    announce = announce or log.info
    if mode in ("off", False, None):
        return teacher
    if not teacher.labels_new_inputs:
        return teacher  # its answers are stored already
    explicit = mode not in ("auto", True)

    def off(reason: str) -> Teacher:
        if explicit:
            link = ", or" if ": set " in reason else "; set"
            raise UserError(f"teacher.cache={mode}: {reason}{link} teacher.cache=off")
        announce(f"teacher cache: not used, {reason}")
        return teacher

    if needs_features:
        return off("the method looks at the teacher's hidden layers, and only its answers could be stored")
    if epochs is not None:  # passes over the data, of which an epoch makes as many as it shows views of a sample
        epochs *= getattr(datamodule, "repeats", None) or 1
    views = planned_views(datamodule.views, epochs)
    if not views:
        return off("every epoch shows the training data anew (data.views=0), and the number of epochs is not known")
    dataset, device = datamodule.train_views_dataset, torch.device(device)
    loader = datamodule.train_dataloader()
    teacher.to(device)
    if precision in APPROXIMATE and LOGITS not in teacher.provides:
        given = ", ".join(sorted(teacher.provides)) or "nothing"
        return off(
            f"teacher.cache_precision={precision} is for logits of classes, this teacher gives {given}: use fp16"
        )
    example = teacher(move_data_to_device(datamodule.example_batch(), device))
    codec = RowCodec(example, precision, top_k)
    parts = cache_parts(teacher, datamodule, codec)
    path = Path(str(mode) if explicit else directory)
    if not (path / "meta.json").exists():  # the directory of the caches, not one cache that was named itself
        path = path / cache_key(parts)
    size = _nbytes(codec, len(dataset), len(views))
    described = f"{len(views)} view{'s' * (len(views) > 1)} of {len(dataset)} samples, {human(size)} in {precision}"
    present = set()
    if (path / "meta.json").exists():
        store = CacheStore(path)
        store.require(parts)
        present.update(store.views())
    missing = [view for view in views if view not in present]
    passes = epochs if expected_passes is None else expected_passes
    if missing and not explicit and passes is not None and passes <= len(views):
        once = f"{len(views)} pass{'es' * (len(views) > 1)} over the training data"
        return off(
            f"it would save no time: storing the teacher's answers takes {once}, these runs need {passes:g} "
            "(teacher.cache=DIRECTORY stores them for later runs all the same)"
        )
    if missing and limit_gb is not None and size > limit_gb * 1e9:
        mend = f"set teacher.cache_limit_gb={math.ceil(size / 1e8) / 10:g}"
        if LOGITS in teacher.provides and codec.top_k is None and precision not in APPROXIMATE:
            small = _nbytes(RowCodec(example, SIX_BIT), len(dataset), len(views))
            if small <= limit_gb * 1e9:
                mend = f"set teacher.cache_precision={SIX_BIT} ({human(small)}) or {mend.removeprefix('set ')}"
        return off(f"the teacher's answers, {described}, are above teacher.cache_limit_gb={limit_gb:g}: {mend}")
    try:
        if missing:
            require_equal_readings(dataset, torch.arange(min(4, len(dataset))), views[0])
            require_space(path, size * len(missing) // len(views))
            announce(f"teacher cache: writing {described}: {path} ({len(missing)} to do)")
            shared = ("batch_size", "num_threads", "timeout", "collate_fn", "seed")
            loading = {key: getattr(loader, key) for key in shared}
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
    use_fitted(store, codec.form)
    cached = CachedTeacher(teacher, store, codec, views, strict=explicit, announce=announce)
    for view in views if size <= VERIFY_AT_OPENING_BYTES else views[:1]:
        cached.rows(view)
    try:
        cached.recheck(dataset, device)
    except NotCacheable as error:
        return off(str(error))
    store.touch()
    announce(f"teacher cache: reading {described}: {path}")
    return cached


def _nbytes(codec: RowCodec, samples: int, views: int) -> int:
    return (codec.row_bytes * samples + 4096) * views


def planned_views(views: int, epochs: int | None) -> list[int]:
    """The views that a run of ``epochs`` sees; none where that is not known."""
    if views == 0:
        return list(range(epochs or 0))
    return list(range(min(views, epochs or views)))


def cache_parts(teacher: Teacher, datamodule: Any, codec: RowCodec) -> dict[str, Any]:
    """Everything that stored rows depend on, by name; two caches with equal parts are the same."""
    return {
        "teacher": teacher.cache_parts(),
        "data": datamodule.data_fingerprint(),
        "views": datamodule.view_fingerprint(),
        "samples": len(datamodule.train_views_dataset),
        "precision": codec.precision,
        "top_k": codec.top_k,
        "columns": [[column.name, column.dtype, list(column.shape)] for column in codec.columns],
    }
