"""A run that goes on where a shorter one, alike in all but its length, ended (``continue_from``)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_scheduler
from kd_lightning.config.fingerprint import config_fingerprint, files_in
from kd_lightning.config.replicates import deciding
from kd_lightning.config.typed import typed
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.runs.checkpoint import load_checkpoint, save_checkpoint
from kd_lightning.runs.code_change import identity_of
from kd_lightning.runs.metrics_file import METRICS_FILE
from kd_lightning.runs.result_file import Result, read_result
from kd_lightning.runs.spec import ALONE, TEACHER, RunSpec
from kd_lightning.schedules.learning_rate import spans_run
from kd_lightning.teachers.recipe import LENGTHS

log = logging.getLogger(__name__)

_LISTED = 3


def earlier_run(spec: RunSpec) -> Path | None:
    """The finished run that ``continue_from`` names: the directory's own, or one within it (a sweep's, a student alone).

    Returns:
        its directory; None where nothing is asked for, or for a student alone that has none to go on from.

    Raises:
        UserError: none there differs from this one in its length only, or it ended where a longer one would not stand.
    """
    asked = spec.config.get("continue_from")
    if asked is None:
        return None
    found: list[tuple[Path, Result]] = []
    for path in (Path(asked), *sorted(filter(Path.is_dir, Path(asked).glob("*")))):
        result = read_result(path / "result.json", strict=False)
        if result is not None and result["status"] == "finished" and (path / "checkpoints/last.ckpt").is_file():
            found.append((path, result))
    for path, result in found:
        if not differing(result["config"], spec.config) and result.get("source", {}) == dict(spec.source):
            _require_same_files(path, result)
            _require_longer(path, result, spec)
            return path
    if spec.role == ALONE:
        return None
    raise UserError(f"continue_from={asked}: {_why_none(found, spec)}")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys, lengths left out, by which two runs' results differ."""
    values = [_without_lengths(deciding(typed(config))) for config in (one, other)]
    return sorted(key for key in values[0].keys() | values[1].keys() if values[0].get(key) != values[1].get(key))


def cannot_continue(specs: Sequence[RunSpec]) -> dict[Path, UserError]:
    """What is wrong with the ``continue_from`` of runs, by run directory."""
    problems: dict[Path, UserError] = {}
    for spec in specs:
        try:
            earlier = earlier_run(spec)
        except UserError as error:
            problems[spec.run_dir] = error
            continue
        scheduler, _ = build_scheduler(spec.config["scheduler"]) if earlier is not None else (None, None)
        if scheduler is not None and spans_run(scheduler):
            name = str(spec.config["scheduler"]["_target_"]).rpartition(".")[2]
            problems[spec.run_dir] = _other_schedule(earlier, f"scheduler: {name}")
    return problems


def begin_where_another_ended(spec: RunSpec) -> None:
    """Put the earlier run's state, best weights and metrics into the directory of one that goes on from it."""
    earlier = None if spec.last_checkpoint.is_file() else earlier_run(spec)
    if earlier is None:
        return
    last: dict[str, Any] = {}
    for name in ("best.ckpt", "last.ckpt"):  # the last one last: a run that has it stands where it says
        last = load_checkpoint(earlier / "checkpoints" / name, "continue_from")
        save_checkpoint(spec.run_dir / "checkpoints" / name, {**last, **identity_of(spec)})
        if name == "best.ckpt":
            shutil.copyfile(earlier / METRICS_FILE, spec.run_dir / METRICS_FILE)
    length = spec.config["trainer"].get("max_epochs")
    log.info(
        "%s continues %s after its %d epochs: the result is that of %s from the start",
        spec.name, earlier, last["epoch"], "the longer run" if length is None else f"{length} epochs",
    )  # fmt: skip


def _without_lengths(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in {f"trainer.{length}" for length in LENGTHS}}


def changed_files_read(result: Mapping[str, Any]) -> str:
    """The files that a run's configuration names, of which some changed since; empty where none did."""
    if result.get("role") == TEACHER or result.get("configuration") in (None, config_fingerprint(result["config"])):
        return ""  # a teacher's counts its data otherwise, results of early versions say none
    return ", ".join(files_in(result["config"])) or "a file"


def _require_same_files(earlier: Path, result: Result) -> None:
    if changed := changed_files_read(result):
        raise UserError(
            f"continue_from={earlier}: what it read has changed since ({changed}), so a "
            f"longer run is no continuation of it: init_from={earlier} starts from its weights"
        )


def _require_longer(earlier: Path, result: Result, spec: RunSpec) -> None:
    before, now = result["config"]["trainer"], spec.config["trainer"]
    where = f"continue_from={earlier}"
    weights = f"init_from={earlier} starts from its weights instead"
    for key in ("max_steps", "max_time"):
        if before.get(key) not in (None, -1):
            raise UserError(
                f"{where}: trainer.{key} may have ended it within an epoch, from which none goes on; {weights}"
            )
    wanted, epochs = now.get("max_epochs"), result["cost"]["epochs"]
    if epochs < (before.get("max_epochs") or 0):
        raise UserError(f"{where}: it stopped early, and a longer one would stop at the same place; {weights}")
    if wanted is not None and wanted != -1 and wanted <= epochs:
        raise UserError(f"{where}: it has {epochs} epochs already: give a larger trainer.max_epochs than {wanted}")


def _why_none(found: list[tuple[Path, Result]], spec: RunSpec) -> str:
    if not found:
        return "holds no finished run with its last state (checkpoints/last.ckpt)"
    path, result = found[0]
    keys = differing(result["config"], spec.config)
    if not keys:
        return f"{path} was made with other code: init_from={path} starts from its weights"
    first, second = (deciding(config) for config in (result["config"], spec.config))
    told = ", ".join(f"{key} is {first.get(key)} there and {second.get(key)} here" for key in keys[:_LISTED])
    more = f" (and {len(keys) - _LISTED} more)" if len(keys) > _LISTED else ""
    return f"a run goes on from one that differs in its length only: {told}{more}; init_from={path} starts from its weights"


class WatchedClock(Clock):
    """A clock that knows whether somebody asked how long the run is."""

    asked = False

    @property
    def total_steps(self) -> int:  # the same value
        type(self).asked = True
        return self[2]


def watched(clock: Clock) -> WatchedClock:
    """A clock of a class of its own, so that copies of it tell the same."""
    return type("Watched", (WatchedClock,), {})(*clock)


def refuse_length_in_method(spec: RunSpec, clock: WatchedClock) -> None:
    """Raise a UserError where a run that is to go on has a method in which the run's length counts."""
    earlier = spec.config.get("continue_from")
    if earlier is not None and clock.asked and earlier_run(spec) is not None:
        raise _other_schedule(earlier, "method: a weight, the temperature or a term")


def _other_schedule(earlier: str | Path | None, what: str) -> UserError:
    return UserError(
        f"continue_from={earlier}: {what} follows the length of the whole run, so a longer run is no continuation of a "
        f"shorter one: init_from={earlier} starts from its weights (scheduler=constant, multistep and plateau can go on)"
    )
