"""A short name for what a configuration computes: equal when the result has to be equal, wherever and however it runs.

A finished run is recognised by it, and a trained teacher is found again by it. So it must not depend on the process,
the machine, the order of keys, on ``4`` being written ``4.0``, or on settings that only say where files go or what is
shown.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_WHERE = ("name", "run_dir", "sweep_dir", "paths", "hydra", "launcher", "max_fused")
_SHOWN = ("logger", "pictures", "log_every_n_steps", "baseline", "checkpoint")
VOLATILE = frozenset((*_WHERE, *_SHOWN))
"""Top-level keys that say where a run goes, with whom it shares a process, and what it shows on the way."""

VOLATILE_WITHIN: dict[str, frozenset[str]] = {
    "data": frozenset({"existing", "download", "num_threads", "prefetch", "timeout"}),
    "trainer": frozenset({"accelerator", "enable_progress_bar", "enable_model_summary", "profiler", "barebones"}),
    "teacher": frozenset({"name", "cache", "cache_limit_gb"}),
}
"""Keys below these that are of the same kind: another machine's accelerator computes the same run."""

_TEACHER_KEYS = frozenset({"model", "train", "checkpoint", "checkpoint_key"})


def config_fingerprint(config: DictConfig | Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that stand for what a run computes.

    Args:
        config: of a job; interpolations are resolved, ``config`` stays as it is.
    """
    return _digest(_lasting(config))


def teacher_fingerprint(config: DictConfig | Mapping[str, Any], data_fingerprint: str) -> str:
    """Return 64 hexadecimal digits that stand for a trained teacher: the same teacher is trained once.

    What counts: its architecture, its training (optimizer, schedule, epochs, seed), its checkpoint's content, the data
    with batch size, order and augmentation, the task, and how the arithmetic is done. Not the student, nor the method,
    nor what only concerns the teacher's use (its cache, its precision as a teacher).

    Args:
        config: of a job whose section ``teacher`` says how the teacher is made; or of the teacher's training as a run
            of its own (``teacher: null``), all of which counts.
        data_fingerprint: of the data's content and views (``DistillationDataModule.data_fingerprint()``).
    """
    lasting = _lasting(config)
    teacher = lasting.get("teacher")
    if isinstance(teacher, Mapping):
        trainer = dict(lasting.get("trainer") or {})
        if teacher.get("train"):
            trainer.pop("max_epochs", None)  # the student's: the teacher's own is in teacher.train
        lasting = {
            "teacher": {key: value for key, value in teacher.items() if key in _TEACHER_KEYS},
            "data": {**lasting["data"], **(teacher.get("data") or {})},
            "task": lasting.get("task"),
            "trainer": trainer,
        }
    return _digest({"config": lasting, "content": data_fingerprint})


def _lasting(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides the result, as plain values."""
    kept = {}
    for key in config:
        if key not in VOLATILE:  # those may refer to what is known in a running Hydra job only
            node = config[key]
            plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
            if isinstance(plain, Mapping):
                volatile = VOLATILE_WITHIN.get(str(key), frozenset())
                if key == "data" and "download" in plain:  # published data: the same in every directory
                    volatile |= {"root"}
                plain = {k: v for k, v in plain.items() if k not in volatile}
            kept[str(key)] = _with_content(plain) if key == "teacher" and isinstance(plain, Mapping) else plain
    return kept


def _with_content(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint counts by what is in it, not by where it lies."""
    teacher = dict(teacher)
    if teacher.get("checkpoint_key") is None:  # as if there were no such key, which earlier versions had not
        teacher.pop("checkpoint_key", None)
    path = teacher.get("checkpoint")
    if path is not None and Path(path).is_file():
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        teacher["checkpoint"] = digest.hexdigest()
    return teacher


def _digest(value: Any) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Numbers by value (4 equals 4.0), mappings by content, everything else by its text."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"number {value!r}"
        return int(value) if value.is_integer() else value
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
