"""A short name for what a configuration computes: equal when the result has to be equal, wherever and however it runs.

A finished run is recognised by it, and a trained teacher is found again by it. So it must not depend on the process,
the machine, the order of keys, or on settings that only say where files go or what is shown: the table of keys
(:mod:`kd_lightning.config.keys`) says which do. It depends on the source of the user's code that it names.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.keys import find
from kd_lightning.config.replicates import deciding, digest, setting_of
from kd_lightning.config.source import source_fingerprint, targets_of
from kd_lightning.config.typed import typed
from kd_lightning.runs.directory import checkpoint_in


class Identity(NamedTuple):
    """What a run is.

    Attributes:
        fingerprint: 64 hexadecimal digits: equal for runs that must have the same result.
        setting: the same for runs that differ in seeds only.
        source: digests of the user's code that counts, by file; empty where all of it is installed.
        configuration: as ``fingerprint``, of the configuration alone.
    """

    fingerprint: str
    setting: str
    source: dict[str, str]
    configuration: str


def identify(config: Mapping[str, Any], configuration: str | None = None) -> Identity:
    """The identity of a run, and of the user's code that it names as it is on the disk now.

    Args:
        config: of the run, resolved, plain.
        configuration: fingerprint of the configuration, where it is not :func:`config_fingerprint` (a teacher's).
    """
    source = source_fingerprint(targets_of({k: node for k, node in config.items() if find(str(k)).decides}))
    configuration = configuration or config_fingerprint(config)
    fingerprint = digest([configuration, source]) if source else configuration
    return Identity(fingerprint, setting_of(typed(config), source), source, configuration)


def config_fingerprint(config: DictConfig | Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that stand for what a configuration says, whatever the code that it names.

    Args:
        config: of a job; interpolations are resolved, ``config`` stays as it is.
    """
    return digest(_lasting(config))


def teacher_fingerprint(own: DictConfig | Mapping[str, Any], data_fingerprint: str) -> str:
    """Return 64 hexadecimal digits that stand for a trained teacher: the same teacher is trained once.

    What counts: its architecture, its training (optimizer, schedule, epochs, seed, a teacher and a method of its own),
    the data with batch size, order and augmentation, the task, and how the arithmetic is done. Not the student that
    learns from it, nor what only concerns the teacher's use.

    Args:
        own: the teacher's training as a run of its own.
        data_fingerprint: of the data's content and views (``DistillationDataModule.data_fingerprint()``).
    """
    return digest({"config": _lasting(own), "content": data_fingerprint})


def files_in(config: Mapping[str, Any]) -> list[str]:
    """The files by whose content a configuration is told from another, each as ``key=path``."""
    return sorted(f"{key}={value}" for key, value in _deciding(config).items() if _content(value) is not value)


def _lasting(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides the result; a file (a checkpoint, a table) counts by what is in it."""
    return {key: _content(value) for key, value in _deciding(config).items()}


def _deciding(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    values = deciding(typed(_plain(config)))
    if isinstance(values.get("init_from"), str):
        values["init_from"] = str(checkpoint_in(values["init_from"]))
    return values


def _plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Plain values; what does not decide may refer to what is known in a running Hydra job only, and is left out."""
    plain = {}
    for key in map(str, config):
        if find(key).decides:
            node = config[key]
            plain[key] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return plain


def _content(path: Any) -> Any:
    """What is in a file, or in a run's best checkpoint, as hexadecimal digits; any other value as it is."""
    if not isinstance(path, str):
        return path
    if os.path.isdir(path) and checkpoint_in(path).is_file():
        path = str(checkpoint_in(path))
    if not re.search(r"[./\\]", path) or not Path(path).is_file():
        return path
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()
