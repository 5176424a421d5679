"""Train a teacher once: it is named by the fingerprint of what made it, stored under that name and found there again."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from kd_lightning.config.build import build_datamodule, build_task, build_teacher_module
from kd_lightning.config.fingerprint import teacher_fingerprint
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.outputs import as_model_output
from kd_lightning.runs.checkpoint import load_checkpoint, load_weights, model_weights
from kd_lightning.runs.latency import parameters_count, state_bytes
from kd_lightning.runs.result_file import read_result
from kd_lightning.runs.spec import TEACHER, RunSpec
from kd_lightning.teachers.alone import ALONE_METHOD
from kd_lightning.teachers.frozen import FrozenTeacher

log = logging.getLogger(__name__)

Train = Callable[[RunSpec], Mapping[str, Any]]


def obtain_teacher(
    config: Mapping[str, Any], datamodule: Any, layers: set[str], train: Train
) -> tuple[FrozenTeacher | None, dict[str, Any] | None]:
    """The frozen teacher of a configuration: pretrained, from a checkpoint, found in the store, or trained now.

    Args:
        config: of a run; its ``teacher`` says which.
        datamodule: the run's data.
        layers: names of teacher layers whose features some method needs.
        train: trains a RunSpec to its end and returns its result.

    Returns:
        The teacher and what ``result.json`` says of it; two None where there is no teacher.

    Raises:
        UserError: the checkpoint cannot be used, or the training of the teacher failed.
    """
    teacher = config["teacher"]
    if not teacher or not teacher.get("model"):
        return None, None
    model = build_teacher_module(teacher, datamodule)
    model.eval()
    with torch.no_grad():  # before it is trained, which may take long
        output = as_model_output(model(datamodule.example_batch().inputs))
    build_task(config).check_output(output, datamodule, "teacher.model")
    info: dict[str, Any] = {"name": teacher["name"], "run_dir": None}
    if teacher.get("train") and not teacher.get("checkpoint"):
        result, run_dir = trained_once(config, datamodule, train)
        content = load_checkpoint(run_dir / "checkpoints" / "best.ckpt", "teacher")
        load_weights(model, model_weights(content), f"{run_dir}/checkpoints/best.ckpt")
        info["run_dir"] = str(run_dir.resolve())
        info["test/" + result["monitor"]["metric"]] = result["metrics"].get("test/" + result["monitor"]["metric"])
        info["val/" + result["monitor"]["metric"]] = result["metrics"].get("best/val_" + result["monitor"]["metric"])
    frozen = FrozenTeacher(
        model,
        normalization=teacher.get("normalization"),
        data_normalization={"mean": datamodule.mean, "std": datamodule.std},
        taps={layer: layer for layer in sorted(layers)},
        precision=str(teacher.get("precision") or "32"),
        channels_last=bool(teacher.get("channels_last")),
        compile=bool(teacher.get("compile")),
        name=teacher["name"],
    )
    info["fingerprint"] = frozen.fingerprint()
    info["parameters"] = parameters_count(model)
    info["bytes"] = state_bytes(model)
    return frozen, info


def trained_once(config: Mapping[str, Any], datamodule: Any, train: Train) -> tuple[Mapping[str, Any], Path]:
    """The result and directory of the teacher's own run; trains it unless the store has it.

    Processes that want the same teacher at the same time take turns at a lock; the operating system frees the lock of
    a process that was killed, and its successor continues from the last checkpoint.
    """
    spec = teacher_spec(config, datamodule)
    spec.run_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{spec.run_dir}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("teacher %s is being trained by another process: waiting for it", spec.name)
        lock.acquire()
    try:
        result = read_result(spec.result_path)
        if result and result["status"] == "finished" and spec.best_checkpoint.is_file():
            log.info("teacher %s found in %s: not trained again", config["teacher"]["name"], spec.run_dir)
            return result, spec.run_dir
        log.info("training the teacher %s in %s", config["teacher"]["name"], spec.run_dir)
        result = train(spec)
    finally:
        lock.release()
    if result["status"] == "interrupted":
        raise RunInterrupted("stopped while the teacher was trained")
    if result["status"] != "finished":
        raise UserError(f"teacher {config['teacher']['name']}: its training {result['status']}: {result['error']}")
    return result, spec.run_dir


def teacher_spec(config: Mapping[str, Any], datamodule: Any) -> RunSpec:
    """The teacher's training as a run of its own: its model as a student without a teacher."""
    teacher, own = config["teacher"], copy.deepcopy(dict(config))
    recipe = teacher["train"]
    own["data"] = {**config["data"], **(teacher.get("data") or {})}
    data = datamodule if own["data"] == config["data"] else _own_data(own)
    own["student"] = copy.deepcopy(teacher["model"])
    own["teacher"] = None
    own["method"] = copy.deepcopy(ALONE_METHOD)
    own["optimizer"] = recipe["optimizer"]
    scheduler = recipe.get("scheduler")
    own["scheduler"] = scheduler and {**scheduler, "interval": recipe.get("scheduler_interval", "step")}
    own["trainer"] = {**config["trainer"], "max_epochs": recipe["max_epochs"], "accumulate_grad_batches": 1}
    own["seed"] = recipe.get("seed", 0)
    own["baseline"] = False
    own["early_stopping"] = {"patience": None, "min_delta": 0.0}
    own["pictures"] = {"every_n_epochs": 0, "samples": 0}
    own["channels_last"] = bool(teacher.get("channels_last"))
    own["compile"] = False
    fingerprint = teacher_fingerprint(own, data.data_fingerprint() + data.view_fingerprint())
    name = f"{teacher['name']}-{fingerprint[:12]}".replace("/", "-")
    run_dir = Path(config["paths"]["teacher_dir"]) / name
    return RunSpec(name, run_dir, own, fingerprint, role=TEACHER)


def _own_data(own: Mapping[str, Any]) -> Any:
    """The data of a teacher's training that differ from the student's; what is wrong with them is its ``data``'s."""
    try:
        return build_datamodule(own)
    except UserError as error:
        raise UserError(f"teacher.data: {error}") from error
