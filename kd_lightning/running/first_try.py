"""Try the runs of all groups before the first of them trains: a configuration that cannot go is told at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_datamodule
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.running.accelerator import require_accelerator
from kd_lightning.running.auto_taps import with_taps
from kd_lightning.running.continuation import cannot_continue
from kd_lightning.running.dry_pass import NOT_TRIED, try_students, untouched_randomness
from kd_lightning.running.labels_needed import without_labels
from kd_lightning.running.shared import teacher_layers
from kd_lightning.runs.spec import RunSpec
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.teachers.suits import reads_logits
from kd_lightning.terminal.quiet import silenced


def try_groups(groups: Sequence[Sequence[RunSpec]]) -> dict[Path, UserError]:
    """What is wrong with each run, by run directory; runs that differ in nothing that is tried are tried once.

    What is no mistake of the user's that can be told in a line is left to the group's own turn. Nothing is trained,
    written or said, and data and teacher are made once where neighbours share them.
    """
    tried: dict[str, UserError | None] = {}
    shared = _Shared()
    for group in groups:
        new = {_alike(spec): spec for spec in group if _alike(spec) not in tried}
        if not new:
            continue
        with silenced(logging.ERROR), untouched_randomness():  # it is said again when it is the group's turn
            found = _problems(list(new.values()), shared)
        tried |= {key: found.get(spec.run_dir) for key, spec in new.items()}
    problems = {spec.run_dir: tried[_alike(spec)] for group in groups for spec in group}
    found = {path: problem for path, problem in problems.items() if problem is not None}
    return found | cannot_continue([spec for group in groups for spec in group])


class _Shared:
    """The data and the teacher of the group before, for one that has the same."""

    def __init__(self) -> None:
        self._data: tuple[str, Any] = ("", None)
        self._teacher: tuple[str, Teacher | None] = ("", None)

    def data(self, config: Any) -> Any:
        key = _text(config["data"])
        if self._data[0] != key:
            self._data, self._teacher = (key, build_datamodule(config)), ("", None)
        return self._data[1]

    def teacher(self, specs: Sequence[RunSpec]) -> Teacher | None:
        config, layers = specs[0].config, sorted(teacher_layers(specs))
        data, needs_logits = self.data(config), reads_logits([spec.config["method"] for spec in specs])
        key = _text([config["teacher"], config["task"], layers, needs_logits])
        if self._teacher[0] != key:
            self._teacher = (key, None)
            made, _ = obtain_teacher(
                config, data, layers, _never, attempt=_attempt(data), needs_logits=needs_logits, trial=True
            )
            self._teacher = (key, made)
        return self._teacher[1]


def _problems(specs: Sequence[RunSpec], shared: _Shared) -> dict[Path, UserError]:
    config = specs[0].config
    try:
        require_accelerator(config)
        data = shared.data(config)
        specs = with_taps(specs, data)
        return without_labels(specs, data) | try_students(specs, data, shared.teacher(specs))
    except UserError as error:
        return dict.fromkeys((spec.run_dir for spec in specs), error)
    except Exception:  # told with its traceback when it is the group's turn
        return {}


def _attempt(data: Any) -> Any:
    """Tries a teacher's own training, as its turn will."""

    def attempt(spec: RunSpec) -> None:
        if spec.config["teacher"] is None:
            for problem in try_students([spec], data).values():
                raise problem

    return attempt


def _never(spec: RunSpec) -> dict[str, Any]:
    raise AssertionError(f"{spec.name}: nothing is trained in a trial")


def _alike(spec: RunSpec) -> str:
    return _text({key: value for key, value in spec.config.items() if key not in NOT_TRIED})


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
