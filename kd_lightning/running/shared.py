"""What the runs of a group ask of the teacher and of its stored outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.running.accelerator import training_device
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.teachers.cache.approximate import may_be_stored
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.cache.rows import RowCodec

log = logging.getLogger(__name__)


def with_stored_answers(
    specs: Sequence[RunSpec], teacher: Teacher | None, datamodule: Any, announce: Callable[[str], Any] = log.info
) -> Teacher | None:
    """The teacher, with its stored answers in front of it where that pays (``announce`` is told)."""
    config = specs[0].config
    if teacher is None or all(spec.role == ALONE for spec in specs):
        return teacher
    node = config["teacher"]
    return open_or_write_cache(
        teacher,
        datamodule,
        node.get("cache", "auto"),
        directory=config["paths"]["cache_dir"],
        epochs=config["trainer"].get("max_epochs"),
        precision=node.get("cache_precision", "fp16"),
        top_k=node.get("cache_top_k"),
        limit_gb=node.get("cache_limit_gb"),
        needs_features=bool(teacher_layers(specs)),
        device=training_device(config),
        announce=announce,
    )


def require_storable(specs: Sequence[RunSpec], teacher: Teacher, answer: ModelOutput) -> None:
    """Raise a UserError where answers of this shape cannot be stored as the keys of the cache say."""
    node = specs[0].config["teacher"]
    alone = all(spec.role == ALONE for spec in specs)
    if may_be_stored(node) and teacher.labels_new_inputs and not alone and not teacher_layers(specs):
        RowCodec(answer, node.get("cache_precision", "fp16"), node.get("cache_top_k"))


def teacher_layers(specs: Sequence[RunSpec]) -> set[str]:
    """Teacher layers whose features some run's method looks at."""
    layers: set[str] = set()
    for spec in specs:
        taps = spec.config["method"].get("taps") or {}
        if isinstance(taps, str):  # to be chosen when the models are there: some layer
            layers.add(taps)
        else:
            layers |= set((taps.get("teacher") or {}).values())
    return layers
