"""An exported ONNX file as a finished run is: with what ``preprocessing.json`` beside it says, and without the run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.exporting.compare import BYTES
from kd_lightning.exporting.formats import first_line
from kd_lightning.exporting.named_inputs import shape_of
from kd_lightning.exporting.onnx_file import OnnxExporter
from kd_lightning.exporting.tokenizers import trusted_tokenizer
from kd_lightning.joints import Task
from kd_lightning.outputs import ModelOutput
from kd_lightning.running.open_run import OpenRun, Preprocessing
from kd_lightning.runs.spec import RunSpec
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.tasks.segmentation import SegmentationTask

BESIDE = "preprocessing.json"


def open_onnx(path: Path | str) -> OpenRun:
    """Open an ONNX file that ``kd-export`` wrote; its ``preprocessing.json`` lies in the same folder.

    The graph is run by onnxruntime on the CPU; of torch, only tensors are used.

    Args:
        path: of the file.

    Raises:
        UserError: the file is no ONNX that onnxruntime can run, or nothing says what it takes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    known = _beside(path)
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f'{path}: running it needs onnxruntime: pip install "kd-lightning[export]"')
    try:
        session = OnnxExporter().open(path, nn.Module())
    except Exception as error:  # of onnxruntime: damaged, truncated, of operators that it lacks
        raise UserError(f"{path}: onnxruntime cannot open it: {first_line(error)}") from error
    written_for = (known.get("sha256") or {}).get(path.name)
    if written_for not in (None, sha256(path)):
        warnings.warn(
            f"{path}: is not the file that {BESIDE} beside it was written with: if it is another student, its classes and what its "
            "inputs are normalised by may be others",
            stacklevel=2,
        )
    mean, std = (None if known[key] is None else tuple(map(float, known[key])) for key in ("mean", "std"))
    preprocessing = Preprocessing(known["scale"], mean, std, known.get("reading"))
    task = str(known.get("task") or ClassificationTask.name)
    return OpenRun(
        RunSpec(
            path.name,
            path,
            {"data": {"tokenizer": trusted_tokenizer(preprocessing.reading, str(path.parent / BESIDE))}},
            "",
        ),
        _Session(session, path, preprocessing if known["inputs"].get(path.name) == BYTES else None),
        {},
        known["class_names"],
        preprocessing,
        {},
        _example(known),
        task,
        cast(Task, _Answers(task in (ClassificationTask.name, SegmentationTask.name))),
    )


def _example(known: Mapping[str, Any]) -> dict[str, Any]:
    """The form of one sample, as ``result.json`` has it."""
    named = known.get("inputs_by_name")
    if not named:
        return {"shape": known["shape"], "dtype": known["dtype"]}
    return {"fields": {name: {"shape": [1], "dtype": form["dtype"]} for name, form in named.items()}}


def _beside(path: Path) -> Mapping[str, Any]:
    beside = path.parent / BESIDE
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
        if not {"shape", "dtype", "scale", "mean", "std", "class_names", "inputs"} <= set(known):
            raise ValueError("it lacks keys")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: has no {BESIDE} beside it, which says what it takes; kd-export writes both"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{beside}: cannot be read: {first_line(error)}") from error
    found: Mapping[str, Any] = known
    return found


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class _Session(nn.Module):
    """Asks the session; a graph that takes bytes is given the pixels that the inputs were made of."""

    def __init__(self, session: Any, path: Path, pixels: Preprocessing | None) -> None:
        super().__init__()
        self._session, self._path, self._pixels = session, path, pixels

    def forward(self, inputs: Any) -> Tensor:
        known = self._pixels
        if known is not None and known.scale is not None and known.mean is not None and known.std is not None:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (known.mean, known.std))
            inputs = ((inputs * std + mean) * known.scale).round().clamp(0, 255).to(torch.uint8)
        try:
            answer: Tensor = self._session(inputs)
        except Exception as error:  # of onnxruntime, about shapes and types
            raise UserError(f"{self._path}: does not answer for {shape_of(inputs)}: {first_line(error)}") from error
        return answer


class _Answers:
    """What an exported tensor means: logits of classes, of a sample or of each pixel, are made probabilities, other answers are as they are."""

    def __init__(self, classes: bool) -> None:
        self._classes = classes

    def read(self, output: ModelOutput) -> ModelOutput:
        return output

    def predict(self, output: ModelOutput) -> Tensor:
        return output.logits.softmax(1) if self._classes else output.logits

    def deviation(self, output: ModelOutput) -> Tensor | None:
        return None
