"""One run as data: what to compute and where to leave it. Plain values only, so that it can be compared and stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_lightning.config.keys import find
from kd_lightning.config.replicates import flat

DISTILLED, ALONE, TEACHER = "distilled", "alone", "teacher"


@dataclass(frozen=True)
class RunSpec:
    """A run that is wanted.

    Attributes:
        name: readable name, unique in its sweep.
        run_dir: where its files go.
        config: the resolved configuration, plain dicts and lists.
        fingerprint: of the part of the configuration that decides the result.
        overrides: command-line overrides that made it.
        role: "distilled", "alone" (the student without a teacher) or "teacher".
        baseline: the student alone that this run is compared with, if one is wanted.
        setting: what the run shares with those that differ from it in seeds only (:mod:`kd_lightning.config.replicates`).
        setting_name: the readable name of that; empty: the run's own.
        source: digests of the user's code that the run is made of, by file.
        configuration: fingerprint of the configuration alone, without the code.
        files: texts that are written into the run's directory as soon as it begins, by relative path.
        judge: makes a :class:`kd_lightning.joints.Judge`, by ``_target_``, that may stop the run early; None: nobody does.
        swept: keys that its sweep varies, with its values as they were written; empty for a single run.
    """

    name: str
    run_dir: Path
    config: Mapping[str, Any]
    fingerprint: str
    overrides: tuple[str, ...] = ()
    role: str = DISTILLED
    baseline: RunSpec | None = None
    setting: str = ""
    setting_name: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""
    files: Mapping[str, str] = field(default_factory=dict, compare=False)
    judge: Mapping[str, Any] | None = field(default=None, compare=False)
    swept: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def result_path(self) -> Path:
        return self.run_dir / "result.json"

    @property
    def last_checkpoint(self) -> Path:
        return self.run_dir / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.run_dir / "checkpoints" / "best.ckpt"

    @property
    def group_key(self) -> str:
        """Runs with equal keys can share batches and teacher outputs: see :func:`shared_part`."""
        return json.dumps(shared_part(self.config), sort_keys=True, default=str)


@dataclass
class Progress:
    """Where a run stands: finished epochs, batches of the next one, optimizer steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loader: dict[str, Any] | None = field(default=None, compare=False)
    callbacks: dict[str, Any] | None = field(default=None, compare=False)


def without_validation(config: Mapping[str, Any]) -> bool:
    """Whether the training data keep no sample for validation (``protocol=literature``): a run's last epoch is tested then."""
    return bool((config.get("data") or {}).get("val_size") == 0)


def shared_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What runs trained in lockstep have in common: the values of all keys in which they may not differ, by dotted key."""
    return {key: value for key, value in flat(config) if not find(key).own}
