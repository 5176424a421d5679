"""The literature's protocol: all training samples, the last epoch, and what that leaves no room for.

``protocol=literature`` means ``data.val_size=0``, and the other way round: what decides a result is the size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kd_lightning.config.targets import import_target
from kd_lightning.runs.spec import without_validation

LITERATURE = "literature"
OWN_VALIDATION = ("val", "val_dir", "val_file")
"""Arguments of data modules that give validation samples beside the training samples."""


def check_protocol(config: Mapping[str, Any], fail: Callable[[str, str], None]) -> None:
    """Call ``fail(key, text)`` for the first key that does not go with the protocol."""
    data = config["data"]
    if config.get("protocol") != LITERATURE:
        if without_validation(config):
            fail(
                "data.val_size",
                "must be > 0, got 0: validation chooses the checkpoint; protocol=literature does without, and takes the last epoch",
            )
        return
    if not without_validation(config):
        fail("data.val_size", "protocol=literature trains on all samples, none is for validation: leave it out")
    for key in OWN_VALIDATION:
        if data.get(key) is not None:
            fail(f"data.{key}", "protocol=literature has no validation: leave it out")
    if (config.get("early_stopping") or {}).get("patience") is not None:
        fail("early_stopping.patience", "stops by validation, and protocol=literature has none: leave it out")
    if (config.get("trainer") or {}).get("limit_val_batches") is not None:
        fail("trainer.limit_val_batches", "protocol=literature looks at the whole test set: leave it out")
    train = (config.get("teacher") or {}).get("train") or {}
    for key, node in (("scheduler", config.get("scheduler")), ("teacher.train.scheduler", train.get("scheduler"))):
        if node and _follows_metric(node):
            fail(key, "follows the validation metric, and protocol=literature has no validation: choose another one")
    for name, node in (config.get("callbacks") or {}).items():
        if not node:
            continue
        if node.get("monitor") is not None:
            fail(f"callbacks.{name}.monitor", "follows validation, and protocol=literature has none: leave it out")
        if _averages(node):
            fail(
                f"callbacks.{name}",
                "its average is kept at a validation, and protocol=literature has none: leave it out",
            )


def _follows_metric(scheduler: Mapping[str, Any]) -> bool:
    """Whether it makes one whose steps want a figure, as ReduceLROnPlateau's do; of a function nobody knows beforehand."""
    made = import_target(scheduler["_target_"])
    return isinstance(made, type) and "metrics" in inspect.signature(getattr(made, "step", made)).parameters


def _averages(callback: Mapping[str, Any]) -> bool:
    from pytorch_lightning.callbacks import WeightAveraging

    made = import_target(callback["_target_"])
    return isinstance(made, type) and issubclass(made, WeightAveraging)
