"""Export a finished run's student, open every file again, compare it with the checkpoint, and only then keep it."""

from __future__ import annotations

import functools
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.config.build import as_trained, build_datamodule, build_sized_model
from kd_lightning.errors import UserError
from kd_lightning.exporting.card import model_card
from kd_lightning.exporting.compare import Compared, on_the_test_split
from kd_lightning.exporting.formats import DEFAULT, first_line
from kd_lightning.exporting.hub import upload
from kd_lightning.exporting.model import OneTensor, Pixels
from kd_lightning.exporting.named_inputs import LENGTH, ByName, example, takes_names
from kd_lightning.exporting.opened_onnx import sha256
from kd_lightning.exporting.precision import FULL, Form, Samples, calibration, forms
from kd_lightning.exporting.report import (
    REPORT,
    comparison_table,
    earlier_files,
    loss_of_metric,
    preprocessing,
    report_content,
)
from kd_lightning.joints import LOGITS
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.show import better_by
from kd_lightning.running.open_run import OpenRun, open_run
from kd_lightning.runs.atomic import rename_atomically
from kd_lightning.runs.result_file import read_result

FOLDER, STEM = "export", "student"
BESIDE = ("preprocessing.json", "README.md", REPORT)
MAX_LOSS = 0.05
"""Largest loss of the metric below full precision, as a share of the checkpoint's."""
EXAMPLES = 2
"""Samples of the example that a graph is traced with: more than one, or "one" would be taken for a constant."""


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
        directory: ``RUN_DIR/export``.
        files: the student's files that were written now.
        report: the content of ``export.json``.
    """

    directory: Path
    files: tuple[Path, ...]
    report: Mapping[str, Any]

    def __str__(self) -> str:
        return comparison_table(self.report).plain()


def export(
    run_dir: Path | str,
    formats: Sequence[str] = DEFAULT,
    preprocess: bool = False,
    overrides: Sequence[str] = (),
    *,
    precision: Sequence[str] = (FULL,),
    max_loss: float = MAX_LOSS,
    push: str | None = None,
) -> Exported:
    """Write the student of a finished run into ``RUN_DIR/export``, with the best checkpoint's weights.

    Args:
        run_dir: directory of a finished run.
        formats: "safetensors", "onnx", "torch_export", "torchscript", or dotted names of exporters.
        preprocess: whether graphs normalise, so that they take uint8 images.
        overrides: ``data.key=value`` changes of the run's configuration, for the comparison.
        precision: "fp32", "fp16", "int8", "int8_dynamic": each form is written in those that it can be written in.
        max_loss: largest loss of the task's metric below fp32, as a share of the checkpoint's.
        push: ``org/name`` of a repository on Hugging Face's hub that the folder is uploaded to.

    Raises:
        UserError: the run is not finished, a form cannot be written or opened, or a file's answers on the test split
            differ beyond the tolerance. What lay in the directory is then as it was.
    """
    chosen = forms(formats, precision)
    run = open_run(run_dir)
    student, task = OneTensor(run.student, run.problem).eval(), run.problem
    named = takes_names(run)
    if named and preprocess:
        raise UserError("preprocess=true: is for images, this student takes texts; leave preprocess=true out")
    pixels = Pixels(run.preprocessing, run.example_shape) if preprocess else None
    result = read_result(run.spec.result_path) or {}
    config = OmegaConf.merge(OmegaConf.create(dict(run.spec.config)), OmegaConf.from_dotlist(list(overrides)))
    data = build_datamodule(OmegaConf.to_container(config))  # type: ignore[arg-type]  # a mapping, as it was before
    directory = run.spec.run_dir / FOLDER
    with _staging(directory) as staging, tempfile.TemporaryDirectory() as scratch:
        files: dict[str, Path] = {}
        compared: dict[str, Compared] = {}
        for name, form in chosen.items():
            within = pixels if form.exporter.holds_graph else None
            files[name] = staging / f"{STEM}{name}"
            samples_of = functools.partial(calibration, data, None if within is None else within.raw, run.reads)
            _write(form, run, within, files[name], samples_of, Path(scratch))
            if extra := set(staging.iterdir()) - set(files.values()):
                raise UserError(f"{form.name}: wrote more than one file ({min(extra).name}); a form is one file")
            compared[name] = Compared(form.name, _open(form, run, files[name]), within, task, form.tolerance)
        checkpoint = Compared("the checkpoint", student, None, task)
        loader = data.test_dataloader()
        try:
            samples, sample = on_the_test_split([checkpoint, *compared.values()], student, loader, run.reads)
        finally:
            loader.close()
        for model in compared.values():
            _within_tolerance(model)
        classes = "num_classes" in run.sizes and LOGITS in task.provides
        own = checkpoint.figures(sample, classes)
        written = {}
        for name, model in compared.items():
            form, figures = chosen[name], model.figures(sample, classes)
            lost = loss_of_metric(result, own, figures)
            if form.precision != FULL:
                _within_loss(form, lost, own, result, max_loss)
            said = {"format": form.format, "precision": form.precision, "bytes": files[name].stat().st_size}
            written[files[name].name] = {**said, **figures, "lost": lost}
        earlier = earlier_files(directory, result["fingerprint"])
        report = report_content(result, samples, own, {**earlier, **written})
        _keep(directory, staging, run, result, report)
    if push is not None:
        upload(directory, [*report["files"], *BESIDE], push)
    return Exported(directory, tuple(directory / name for name in written), report)


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """A folder within ``directory`` for files that are not known to be right yet; gone afterwards, whatever happens."""
    made = not directory.exists()
    try:
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".unchecked-") as staging:
            yield Path(staging)
    except OSError as error:
        place = error.filename2 or error.filename or directory  # of a copy, where it goes
        raise UserError(f"export: {place}: {error.strerror or error}") from error
    finally:
        if made and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _write(form: Form, run: OpenRun, pixels: Pixels | None, path: Path, samples: Samples, scratch: Path) -> None:
    model = form.prepared(run.student)
    inputs = _example(run)
    if form.exporter.holds_graph:
        model = OneTensor(model, run.problem)
        model = ByName(model) if isinstance(inputs, Mapping) else model
    if pixels is not None:
        model = nn.Sequential(pixels, model)
        inputs = inputs.to(torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of exporters, about their own next versions
            form.write(model.eval(), inputs, path, samples, scratch)
    except OSError:
        raise
    except Exception as error:  # tracing fails in as many ways as models are written
        if isinstance(error, UserError):
            raise
        hint = "; format=safetensors needs no graph" if form.exporter.holds_graph else ""
        cause = error.__cause__ or error
        raise UserError(
            f"{form.name}: {type(run.student).__name__} cannot be written: {first_line(cause)}{hint}"
        ) from error
    if not path.is_file():
        raise UserError(f"{form.name}: wrote no file of the name that it was given")


def _example(run: OpenRun) -> Any:
    if not takes_names(run):
        return run.example_inputs(EXAMPLES)
    told = (run.preprocessing.reading or {}).get("text") or {}
    return example(EXAMPLES, int(told.get("max_length") or LENGTH))


def _open(form: Form, run: OpenRun, path: Path) -> Any:
    fresh = build_sized_model(run.spec.config["student"], run.problem.sizes(run.sizes), f"{run.spec.run_dir}: student")
    fresh = as_trained(fresh, run.spec.config, run.student.state_dict())
    try:
        opened = form.exporter.open(path, fresh)
        return opened if form.exporter.holds_graph else OneTensor(opened, run.problem)
    except Exception as error:  # whatever reads the file, with whatever it raises
        raise UserError(f"{form.name}: the file cannot be opened again: {first_line(error)}") from error


def _within_tolerance(model: Compared) -> None:
    if not model.difference <= model.tolerance:  # not ">": NaN is beyond any tolerance
        raise UserError(
            f"{model.name}: its answers on the test split differ from the checkpoint's by up to {model.difference:.2g}, "
            f"beyond {model.tolerance:.2g}: nothing was kept"
        )


def _within_loss(
    form: Form, lost: float | None, checkpoint: Mapping[str, Any], result: Mapping[str, Any], most: float
) -> None:
    metric = Declared.of_result(result).monitored
    if lost is not None and not lost <= most * abs(checkpoint["metrics"][metric.name]):
        raise UserError(
            f"{form.name}: the test {metric.heading} is {better_by(metric, -lost)} than the checkpoint's, and max_loss={most:g} "
            "of it is allowed: nothing was kept"
        )


def _keep(directory: Path, staging: Path, run: OpenRun, result: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Everything has been compared: put it in place, the report last. All is on the disk before the first is renamed."""
    files = list(staging.iterdir())
    there = {name: next(p for p in (staging / name, directory / name) if p.is_file()) for name in report["files"]}
    digests = {name: sha256(path) for name, path in there.items()}
    texts = {
        "preprocessing.json": _json({**preprocessing(run, report), "sha256": digests}),
        "README.md": model_card(run, result, report, comparison_table(report)),
        REPORT: _json(report),
    }
    for name, text in texts.items():
        (staging / name).write_text(text, encoding="utf-8")
        files.append(staging / name)
    for file in files:
        rename_atomically(file, directory / file.name)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
