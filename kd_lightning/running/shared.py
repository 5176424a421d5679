"""What the runs of a group have in common, made once: their data, their teacher and its stored outputs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_datamodule
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.running.group import Group
from kd_lightning.running.memory import members_that_fit
from kd_lightning.running.outcome import Result, finished_result, pending
from kd_lightning.runs.directory import held
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.registry import obtain_teacher

log = logging.getLogger(__name__)

Display = Callable[[Sequence[str]], Any]


class Shared:
    """What the runs of a group have in common: the data, the teacher, and its stored outputs.

    Args:
        specs: the runs.
        log_file: name of the log file in each run's directory.
        display: see :func:`kd_lightning.running.execute.execute`.

    Raises:
        UserError: the data or the teacher cannot be had.
        RunInterrupted: a signal asked to stop while the teacher was trained.
    """

    def __init__(self, specs: Sequence[RunSpec], log_file: str | None, display: Display | None) -> None:
        self.specs, self.config = list(specs), specs[0].config
        self.log_file, self.display = log_file, display
        require_one_device(self.config)
        self.datamodule = build_datamodule(self.config)
        self.teacher, self.teacher_info = obtain_teacher(
            self.config, self.datamodule, teacher_layers(specs), lambda spec: train_alone(spec, log_file, display)
        )
        self.teacher = with_stored_answers(specs, self.teacher, self.datamodule, self._tell_cache)

    def _tell_cache(self, text: str) -> None:
        """Show a line, and keep the last one: stored outputs are rounded, so a result says whether it is from them."""
        log.info("%s", text)
        self.teacher_info["cache"] = text.removeprefix("teacher cache: ")

    def parts(self) -> list[list[RunSpec]]:
        """The runs in parts that fit into memory together."""
        size = members_that_fit(self.specs, self.datamodule) if len(self.specs) > 1 else 1
        return [self.specs[start : start + size] for start in range(0, len(self.specs), size)]

    def train(self, part: Sequence[RunSpec]) -> dict[Path, Result]:
        """Train some of the runs side by side.

        A run whose directory another process holds is left to that process, and fails here.
        """
        results: dict[Path, Result] = {}
        with contextlib.ExitStack() as stack:
            mine = []
            for spec in part:
                try:
                    stack.enter_context(held(spec))
                except UserError as error:
                    if len(self.specs) == 1:
                        raise
                    log.error("%s", error)
                    results[spec.run_dir] = pending(spec, "failed", str(error))
                    continue
                done = finished_result(spec)  # by another process, in the meantime
                if done is None:
                    mine.append(spec)
                else:
                    results[spec.run_dir] = done
            if mine:
                shown = self.display([spec.name for spec in mine]) if self.display else None
                group = Group(mine, self.datamodule, self.teacher, self.teacher_info, shown, self.log_file)
                with shown or contextlib.nullcontext():
                    made = group.run()
                results |= {spec.run_dir: result for spec, result in zip(mine, made, strict=True)}
        return {spec.run_dir: results[spec.run_dir] for spec in part}


def train_alone(spec: RunSpec, log_file: str | None, display: Display | None) -> Result:
    """Train one run, for example a teacher, by itself."""
    return Shared([spec], log_file, display).train([spec])[spec.run_dir]


def require_one_device(config: Mapping[str, Any]) -> None:
    """Stop where the configuration asks for data-parallel training, which these commands do not start.

    Raises:
        UserError: ``trainer.devices`` is not 1, or there are several nodes, or a strategy over several devices.
    """
    trainer = config["trainer"]
    allowed = {"devices": (1, "1"), "num_nodes": (1,), "strategy": ("auto", None)}
    for key, values in allowed.items():
        if key in trainer and trainer[key] not in values:
            raise UserError(
                f"trainer.{key}={trainer[key]}: a run trains on one device here; for data-parallel training give a "
                "Distiller to a Trainer of your own"
            )


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
        announce=announce,
    )


def teacher_layers(specs: Sequence[RunSpec]) -> set[str]:
    """Teacher layers whose features some run's method looks at."""
    layers: set[str] = set()
    for spec in specs:
        taps = (spec.config["method"].get("taps") or {}).get("teacher") or {}
        layers |= set(taps.values())
    return layers
