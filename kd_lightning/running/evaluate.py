"""Test a finished run again from its directory alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from kd_lightning.config.build import build_datamodule, build_member, build_trainer
from kd_lightning.config.fingerprint import config_fingerprint, identify
from kd_lightning.config.replicates import deciding
from kd_lightning.config.source import changed_files
from kd_lightning.config.typed import typed
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.recorder import Recorder
from kd_lightning.running.continuation import changed_files_read
from kd_lightning.runs.checkpoint import load_checkpoint, load_weights
from kd_lightning.runs.latest import no_result
from kd_lightning.runs.result_file import read_result
from kd_lightning.trainer_facts import teacher_module

log = logging.getLogger(__name__)

Metrics = dict[str, float]
TESTING = ("accelerator", "limit_test_batches", "fast_dev_run")  # the Trainer's arguments that a test depends on
OF_TRAINING = ("data.batch_size", "data.augment", "data.views", "data.repeats", "data.shuffle_seed", "data.drop_last")
"""Settings of the data that no test depends on."""


class TestMetrics(Recorder):
    """Keeps the test metrics."""

    def __init__(self) -> None:
        self.metrics: Metrics = {}

    def tested(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def failed(self, error: Exception) -> None:
        raise error


class Evaluation(NamedTuple):
    """A run's test metrics, as ``test/<name>``.

    Attributes:
        measured: now.
        stored: those of ``result.json``.
        other_data: overrides name other data than the run's: the two are no figures of one thing.
    """

    measured: Metrics
    stored: Metrics
    other_data: bool = False


def evaluate_run(run_dir: Path, overrides: Sequence[str] = ()) -> Evaluation:
    """Measure the best checkpoint on the test split.

    Args:
        run_dir: directory of a finished run.
        overrides: ``key=value`` changes of its configuration.
    """
    from kd_lightning.running.shared import teacher_layers
    from kd_lightning.runs.result_content import spec_of_result
    from kd_lightning.teachers.example import example_answer
    from kd_lightning.teachers.registry import obtain_teacher, trained_in
    from kd_lightning.teachers.suits import reads_logits

    result = read_result(run_dir / "result.json")
    if result is None:
        raise UserError(no_result(run_dir))
    if result["status"] != "finished":
        raise UserError(f"{run_dir}: the run {result['status']}; only a finished one has figures to compare with")
    config = OmegaConf.merge(OmegaConf.create(result["config"]), OmegaConf.from_dotlist(list(overrides)))
    spec = spec_of_result({**result, "config": OmegaConf.to_container(config)}, run_dir)
    changed = changed_files(result.get("source") or {}, identify(spec.config).source)
    if changed and not overrides:
        log.warning("%s changed since: the weights of %s are loaded into other code", ", ".join(changed), run_dir)
    datamodule = build_datamodule(spec.config)
    if others := _other_data(result, spec.config):
        log.warning(
            "WARNING: %s: the split and the preprocessing (scales, medians, categories) are made anew from that data, rows that "
            "the student was trained on may be among those tested; kd-predict takes the run's own preprocessing",
            ", ".join(others),
        )

    def never(_: Any) -> Any:
        raise UserError(f"{run_dir}: its teacher is no longer in paths.teacher_dir, start kd-train run_dir={run_dir}")

    teacher, _ = obtain_teacher(
        spec.config,
        datamodule,
        teacher_layers([spec]),
        never,
        attempt=never,
        needs_logits=reads_logits([spec.config["method"]]),
        found=trained_in(result["teacher"]),  # wherever this is called, and whatever the overrides are
    )
    example = datamodule.example_batch()
    output = None if teacher is None else example_answer(teacher, example)
    member = build_member(spec.config, datamodule, example, output, spec.name, teacher_module(teacher))
    weights = load_checkpoint(spec.best_checkpoint, "run_dir")["state_dict"]
    load_weights(member, weights, f"run_dir={spec.best_checkpoint}")
    tested = TestMetrics()
    tests = {k: v for k, v in spec.config["trainer"].items() if k in TESTING}
    trainer = build_trainer({"trainer": tests}, logger=False, enable_checkpointing=False)
    loader = datamodule.test_dataloader()
    try:
        trainer.test(Distiller(teacher, member, [tested]), loader, verbose=False)
    finally:
        loader.close()
    measured = Declared(member.task.metrics, member.task.monitor).students(tested.metrics, "test/")
    stored = {k: v for k, v in result["metrics"].items() if k.startswith("test/")}
    if not overrides and measured != stored and (read := changed_files_read(result)):
        log.warning("what the run read has changed since (%s): these are figures of other data", read)
    return Evaluation(measured, stored, bool(others))


def _other_data(result: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Keys that name other data than those of the run, each ``key=value``; none where its files are the same elsewhere."""
    before, now = deciding(typed(result["config"])), deciding(typed(config))
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if key.startswith("data.") and not key.startswith(OF_TRAINING) and before.get(key) != now.get(key)
    ]
    same = not changed or config_fingerprint(config) == result.get("configuration")
    return [] if same else [f"{key}={now.get(key)}" for key in changed]


def say_evaluation(measured: Metrics, stored: Metrics, other_data: bool = False) -> int:
    """Print both side by side; 0 if they are the same figures, or of other data, which are not compared."""
    width = max(len(name) for name in measured)
    same = True
    for name, value in measured.items():
        before = stored.get(name)
        equal = before == value or (math.isnan(value) and name in stored and before is None)  # no figure: no label, say
        mark = "" if equal else f"   result.json says {before}"
        same = same and equal
        print(f"{name:<{width}}  {_figure(value)}{mark}")
    if other_data:
        print("figures of other data than the run's: not compared with result.json")
        return 0
    print("equal to result.json" if same else "differs from result.json")
    return 0 if same else 1


def _figure(value: float) -> str:
    return f"{value:.6g}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"  # targets in small units have small errors
