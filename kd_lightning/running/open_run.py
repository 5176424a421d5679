"""A finished run's student, rebuilt from its directory alone: no data set, no teacher."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from yaml import YAMLError

from kd_lightning.calling import only_input
from kd_lightning.config.build import as_trained, build_sized_model, build_task
from kd_lightning.config.source import source_fingerprint, targets_of
from kd_lightning.config.targets import TargetProblem, import_target
from kd_lightning.data.images.image_data import normalise
from kd_lightning.data.tables.by_name import in_order, is_table, numbers
from kd_lightning.data.tables.encoding import TableEncoder
from kd_lightning.data.tables.reading import given_table
from kd_lightning.data.tables.unfamiliar import unfamiliar
from kd_lightning.errors import UserError
from kd_lightning.joints import Task
from kd_lightning.outputs import ModelOutput
from kd_lightning.running.predict import answers
from kd_lightning.runs.checkpoint import load_checkpoint, load_weights, model_weights
from kd_lightning.runs.latest import LATEST, latest, no_result
from kd_lightning.runs.result_content import spec_of_result
from kd_lightning.runs.result_file import read_result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.zoo import PREFIX, WEIGHTS, zoo_directory
from kd_lightning.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preprocessing:
    """How the student's inputs were made: ``(pixels / scale - mean) / std``, by channel; None where nobody knows.

    Attributes:
        scale: largest value of the raw pixels, 255 for bytes.
        mean, std: per channel, of pixels in [0, 1].
        reading: how a picture in a file became pixels: the data module's ``reading``.
    """

    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    reading: Mapping[str, Any] | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Raw pixels (N, C, H, W) or (C, H, W) as the student takes them: to the last bit what the run's loaders give.

        Raises:
            UserError: the data said nothing of how they were normalised, or had other channels.
        """
        if self.scale is None or self.mean is None or self.std is None:
            raise UserError("the run's data did not say how they normalise: give inputs as your data set makes them")
        if pixels.dim() < 3 or pixels.shape[-3] != len(self.mean):
            form = " x ".join(map(str, pixels.shape))
            raise UserError(f"pixels are (N, {len(self.mean)}, H, W) in this run, got {form}")
        return normalise(pixels, self.mean, self.std, scale=self.scale)


@dataclass(frozen=True, repr=False)
class OpenRun:
    """A finished run, to be used.

    Attributes:
        spec: name, directory, configuration, fingerprint.
        student: with the weights of the best checkpoint, on the CPU, in eval mode.
        sizes: what the model took from the data: ``num_classes``, ``in_channels``, ….
        class_names: in the order of the logits, or None.
        preprocessing: how inputs were made from pixels.
        metrics: ``test/acc``, ``best/val_acc``, …: those of ``result.json``.
        task: the name of the kind of problem: ``classification``, ….
        problem: the task itself, as it was fitted to the run's data: what an output means.
    """

    spec: RunSpec
    student: nn.Module
    sizes: Mapping[str, int]
    class_names: Sequence[str] | None
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    _example: Any
    task: str = ClassificationTask.name
    problem: Task = field(default_factory=ClassificationTask)

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items() if name.startswith("test/"))
        return f"OpenRun({str(self.spec.run_dir)!r}: {self.task}, {type(self.student).__name__}; {measured})"

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one sample's input, without the batch dimension.

        Raises:
            UserError: the inputs are no single tensor.
        """
        return _shape(self._own_example, f"run_dir={self.spec.run_dir}")

    def example_inputs(self, samples: int = 1) -> Any:
        """Zeros of the shape and type that the student takes (empty texts where it takes texts), or the structure of them."""
        return _zeros(self._own_example, samples, f"run_dir={self.spec.run_dir}")

    @property
    def reads(self) -> str | None:
        """The one of its data's several inputs by name that the student takes (a teacher may have read others); None where
        there is one input, or the student takes more of them, or no floats of one shape."""
        fields: Mapping[str, Any] = (self._example or {}).get("fields") or {}
        name = only_input(self.student, fields)
        floats = name is not None and "float" in str(fields[name].get("dtype"))  # token numbers differ in length
        return name if floats else None

    @property
    def _own_example(self) -> Any:
        return self._example if self.reads is None else self._example["fields"][self.reads]

    @property
    def table(self) -> TableEncoder | None:
        """What makes inputs of a table's columns, as the run's data did; None where they were no table."""
        codes = (self.preprocessing.reading or {}).get("table")
        return None if codes is None else TableEncoder.from_plain(codes)

    @property
    def value_names(self) -> Sequence[str] | None:
        """The columns that a run on a table predicts; None where nobody knows, or classes are predicted."""
        names: Sequence[str] | None = (self.preprocessing.reading or {}).get("target")
        return names if self.class_names is None else None

    def predict(self, inputs: Any, batch_size: int = 64) -> Tensor:
        """What the task makes of the student's outputs, float32 on the CPU: class probabilities (N, C), of a regression the
        values (N, D) in the data's units; of tasks that say nothing the outputs as they are.

        The student is put in eval mode, and asked without gradients, on the device where it is.

        Args:
            inputs: of a run on a table: its columns by name, or a pandas DataFrame, as they stand in the file; of one that
                was given a DataFrame in Python, another one, whose columns are found by name. uint8
                (N, C, H, W): raw pixels, which become what the run's loaders would make of them. Anything else:
                inputs as the run's data set makes them, (N, ...), or the structure of them; arrays are taken as tensors.
            batch_size: samples that are computed at once, >= 1.

        Raises:
            UserError: of another shape than the run's, or raw pixels where the data did not say how they normalise.
        """
        return self._answers(inputs, batch_size, self.problem.predict)

    def deviations(self, inputs: Any, batch_size: int = 64) -> Tensor | None:
        """How sure a regression's student is (``task.output=gaussian`` or ``bins``): the standard deviations (N, D) of what
        :meth:`predict` gives, in the same units; None of students that do not say. Arguments as there."""

        def make(output: ModelOutput) -> Tensor:
            deviation = self.problem.deviation(output)
            return output.logits[:, :0] if deviation is None else deviation

        found = self._answers(inputs, batch_size, make)
        return found if found[0].numel() else None

    def _answers(self, inputs: Any, batch_size: int, make: Callable[[ModelOutput], Tensor]) -> Tensor:
        if self.table is not None and (isinstance(inputs, Mapping) or hasattr(inputs, "columns")):
            table = given_table(inputs)
            inputs = self.table.encode(table)
            for said in unfamiliar(self.table.codes, table):
                log.warning("%s", said)
        elif is_table(inputs) and (names := (self.preprocessing.reading or {}).get("columns")):
            inputs = numbers("inputs", in_order("inputs", inputs, names))
        if self.reads is not None and isinstance(inputs, Mapping) and self.reads in inputs:
            inputs = inputs[self.reads]
        return answers(self.student, inputs, self._own_example, self.preprocessing, batch_size, self.problem, make)


def open_run(run_dir: Path | str, student: nn.Module | None = None) -> OpenRun:
    """Open a finished run.

    ::

        run = kd.open_run("outputs/kd/s0")
        probabilities = run.predict(pixels)
        with torch.no_grad():
            logits = run.student(run.preprocessing(pixels))

    Args:
        run_dir: directory of a finished run (or its ``result.json``); "latest": the newest run in ``outputs``;
            "zoo:NAME": a student that ships.
        student: a module of the same layers, which gets the run's weights; None: made as the run's configuration says.
            A student that was given to ``kd.distill`` as an object is known to the process that did so only.

    Raises:
        UserError: the run is not there, not finished, its checkpoint is missing or damaged, its model's code is not found or not
            the one that was trained.
    """
    run_dir = _directory(run_dir)
    result = read_result(run_dir / "result.json")
    if result is None:
        raise UserError(no_result(run_dir))
    if result["status"] != "finished":
        raise UserError(f"{run_dir}: the run is {result['status']}; only a finished one can be opened")
    spec = spec_of_result(result, run_dir)
    data = result.get("data") or {}
    sizes = data.get("sizes") or {}
    weights = _weights(spec)
    task = build_task(spec.config)
    if result.get("fitted"):
        task.restore(result["fitted"])
    if student is None:
        _find_code(spec.config["student"], run_dir)
        if "source" in result:
            _same_code(spec, run_dir)
        student = build_sized_model(spec.config["student"], task.sizes(sizes), f"{run_dir}: student")
    student = as_trained(student, spec.config, weights)
    load_weights(student, weights, f"run_dir={spec.best_checkpoint}")
    return OpenRun(
        spec,
        student.eval(),
        sizes,
        data.get("class_names"),
        Preprocessing(data.get("scale"), _tuple(data.get("mean")), _tuple(data.get("std")), data.get("reading")),
        result["metrics"],
        data.get("example"),
        result["task"],
        task,
    )


def _weights(spec: RunSpec) -> dict[str, Any]:
    """Of the best checkpoint; of a student in the zoo, which has none, of the file beside ``result.json``."""
    alone = spec.run_dir / WEIGHTS
    if alone.is_file() and not spec.best_checkpoint.is_file():
        return load_checkpoint(alone, "run_dir")
    return model_weights(load_checkpoint(spec.best_checkpoint, "run_dir"))


def _directory(given: Path | str) -> Path:
    if not isinstance(given, (str, os.PathLike)) or not str(given):
        raise UserError(f"open_run({given!r}): give the directory of a finished run, or 'latest'")
    if isinstance(given, str) and given.startswith(PREFIX):
        return zoo_directory(given)
    path = latest("run") if given == LATEST else Path(given)
    if path.name == "result.json":
        return path.parent
    if path.is_file():
        raise UserError(f"{path}: is a file; give the directory of a finished run")
    return path


def _find_code(student: Mapping[str, Any], run_dir: Path) -> None:
    """Raise a UserError that says where the run was started, if the student's class is not to be found here."""
    target = str(student.get("_target_"))
    try:
        import_target(target)
    except TargetProblem as problem:
        started = started_in(run_dir)
        hint = f"; the run was started in {started}: start there, or put that folder on PYTHONPATH" if started else ""
        raise UserError(f"{run_dir}: its student, {target}, is not found here ({problem.text}){hint}") from problem


def _same_code(spec: RunSpec, run_dir: Path) -> None:
    """Raise a UserError if a file that the student is made of is not as it was when it was trained."""
    now = source_fingerprint(targets_of(spec.config["student"]))
    changed = [name for name, digest in now.items() if spec.source.get(name) != digest]
    if changed:
        raise UserError(
            f"{run_dir}: {', '.join(changed)} changed since the run was trained, and its weights belong to the code as it "
            "was: bring that back, or train again"
        )


def started_in(run_dir: Path) -> Path | None:
    """The working directory that the run was started in, as Hydra noted it; None where it did not."""
    try:
        noted = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml")
        return Path(str(OmegaConf.select(noted, "hydra.runtime.cwd", throw_on_missing=True)))
    except (OSError, OmegaConfBaseException, YAMLError):
        return None


def _tuple(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _shape(example: Any, where: str) -> tuple[int, ...]:
    if not isinstance(example, Mapping) or "shape" not in example:
        raise UserError(f"{where}: its inputs are no single tensor of a known shape; see example_inputs()")
    return tuple(example["shape"])


def _zeros(example: Any, samples: int, where: str) -> Any:
    if isinstance(example, Mapping):
        if "shape" in example:
            return torch.zeros(samples, *example["shape"], dtype=getattr(torch, example["dtype"]))
        if "fields" in example:
            return {name: _zeros(value, samples, where) for name, value in example["fields"].items()}
        if "items" in example:
            return [_zeros(value, samples, where) for value in example["items"]]
        if example.get("type") == "text":
            return [""] * samples
    raise UserError(f"{where}: its result.json does not say what the inputs look like; give your own")
