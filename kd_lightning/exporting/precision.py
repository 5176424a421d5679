"""Exports of a lower precision: half precision, and eight bits by onnxruntime.

==============  ======================================  =====================================================
precision       of                                      what is in the file
==============  ======================================  =====================================================
fp16            every shipped form                      weights in half precision; graphs compute in it
int8            onnx                                    weights and activations in 8 bits, ranges of the activations
                                                        from :data:`CALIBRATION` training samples
int8_dynamic    onnx                                    weights in 8 bits, ranges found anew in each call
==============  ======================================  =====================================================

Inputs and outputs stay as they are in full precision.
"""

from __future__ import annotations

import copy
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.calling import ask
from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import UserError
from kd_lightning.exporting.compare import TOLERANCE
from kd_lightning.exporting.formats import exporters
from kd_lightning.exporting.named_inputs import Inputs, each
from kd_lightning.exporting.onnx_file import INPUT
from kd_lightning.joints import DataModule, Exporter
from kd_lightning.outputs import ModelOutput, as_model_output
from kd_lightning.terminal.quiet import silenced

FULL = "fp32"
OF_FORMAT = {
    "safetensors": (FULL, "fp16"),
    "onnx": (FULL, "fp16", "int8", "int8_dynamic"),
    "torch_export": (FULL, "fp16"),
    "torchscript": (FULL, "fp16"),
}
"""What each shipped form can be written in; a form of the user's is written in full precision."""
PRECISIONS = OF_FORMAT["onnx"]
TOLERANCES = {FULL: TOLERANCE, "fp16": 0.02}
"""Largest difference of an output, as a share of the largest output; 8 bits are judged by the metric alone."""
CALIBRATION = 512
"""Training samples that the ranges of activations are taken from."""
_BATCH = 64

Samples = Callable[[], Tensor]


@dataclass(frozen=True)
class Form:
    """A form of export in one precision.

    Attributes:
        format: "onnx", ….
        exporter: writes and opens it in full precision.
        precision: one of :data:`PRECISIONS`.
    """

    format: str
    exporter: Exporter
    precision: str = FULL

    @property
    def name(self) -> str:
        """For messages."""
        return f"format={self.format}" + (f" precision={self.precision}" if self.precision != FULL else "")

    @property
    def suffix(self) -> str:
        """Of its file's name: ".onnx", ".int8.onnx"."""
        return self.exporter.suffix if self.precision == FULL else f".{self.precision}{self.exporter.suffix}"

    @property
    def tolerance(self) -> float:
        """Largest difference of an output that counts as rounding, as a share of the largest output."""
        return TOLERANCES.get(self.precision, float("inf"))

    def prepared(self, student: nn.Module) -> nn.Module:
        """The student as it is handed to the exporter."""
        if self.precision == "fp16" and self.format != "onnx":
            return HalfInside(student) if self.exporter.holds_graph else copy.deepcopy(student).half()
        return student

    def write(self, model: nn.Module, example: Inputs, path: Path, samples: Samples, scratch: Path) -> None:
        """Write the file.

        Args:
            model: made of what :meth:`prepared` gave.
            example: inputs to trace with.
            path: of the file.
            samples: gives training inputs (N, ...) as the file takes them, for the ranges of activations.
            scratch: a folder where the forms of one export keep what they share.
        """
        if self.format != "onnx":
            self.exporter.write(model, example, path)
            return
        whole = scratch / "whole.onnx"
        if not whole.is_file():  # tracing takes seconds
            self.exporter.write(model, example, whole)
        if self.precision == FULL:
            shutil.copyfile(whole, path)
        else:
            with silenced(logging.WARNING):  # onnxruntime recommends things on the root logger
                LOWERED[self.precision](whole, path, samples)


class HalfInside(nn.Module):
    """A student that computes in half precision between inputs and outputs of full precision."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).half()

    def forward(self, inputs: Any) -> ModelOutput:
        """Inputs (N, ...) in float32, or several by name, and so is what is answered."""
        inputs = each(inputs, lambda part: part.half() if part.is_floating_point() else part)
        output = as_model_output(ask(self.student, inputs))
        spread = None if output.spread is None else output.spread.float()
        return ModelOutput(output.logits.float(), spread=spread)


def forms(names: Sequence[str], precisions: Sequence[str]) -> dict[str, Form]:
    """Every asked form in each of the precisions that it can be written in, by the suffix of its file.

    Raises:
        UserError: a name is unknown, or a form can be written in none of the precisions, or none in one of them.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            known = did_you_mean(precision, PRECISIONS)
            raise UserError(f"precision={precision}: no such precision{known}")
    if not precisions:
        raise UserError(f"precision: names none; give some of {', '.join(PRECISIONS)}")
    found: dict[str, Form] = {}
    for name, exporter in exporters(names).items():
        able = [precision for precision in precisions if precision in OF_FORMAT.get(name, (FULL,))]
        if not able:
            raise UserError(
                f"format={name}: cannot be written with precision={','.join(precisions)}; there is "
                f"{', '.join(OF_FORMAT.get(name, (FULL,)))}"
            )
        for precision in able:
            form = Form(name, exporter, precision)
            found[form.suffix] = form
    missing = [precision for precision in precisions if all(form.precision != precision for form in found.values())]
    if missing:
        able_formats = [name for name, known in OF_FORMAT.items() if missing[0] in known]
        raise UserError(f"precision={missing[0]}: is for format={','.join(able_formats)}")
    return found


def _half(whole: Path, path: Path, samples: Samples) -> None:
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # onnxruntime 1.32 dies of a segmentation fault while it opens vision transformers with GELU in half precision.
    kept = [*DEFAULT_OP_BLOCK_LIST, "Gelu"]
    onnx.save(convert_float_to_float16(onnx.load(str(whole)), keep_io_types=True, op_block_list=kept), str(path))
    _opened_elsewhere(path)


def _opened_elsewhere(path: Path) -> None:
    """Let another process open the file first: a fault within onnxruntime would end this one without a word."""
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
    if ended.returncode < 0:
        raise RuntimeError(f"onnxruntime dies of signal {-ended.returncode} while it opens the file")


def _dynamic(whole: Path, path: Path, samples: Samples) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = whole.with_name("ready.onnx")
    quant_pre_process(str(whole), str(ready))
    quantize_dynamic(str(ready), str(path), weight_type=QuantType.QUInt8)


def _static(whole: Path, path: Path, samples: Samples) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[no-any-unimported]  # onnxruntime ships no types
        def __init__(self) -> None:
            self.batches = iter([{INPUT: batch.numpy()} for batch in samples().split(_BATCH)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    ready = whole.with_name("ready.onnx")
    quant_pre_process(str(whole), str(ready))
    quantize_static(str(ready), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


LOWERED: dict[str, Callable[[Path, Path, Samples], None]] = {
    "fp16": _half,
    "int8": _static,
    "int8_dynamic": _dynamic,
}


def calibration(data: DataModule, raw: Callable[[Tensor], Tensor] | None, reads: str | None = None) -> Tensor:
    """Inputs of training samples, (N, ...) with N up to :data:`CALIBRATION`, as an exported graph takes them.

    Args:
        data: of the run.
        raw: makes them what the graph takes; None: it takes them as they are.
        reads: which of several inputs by name; None: there is one.
    """
    found: list[Tensor] = []
    loader = data.train_dataloader()
    try:
        for batch in loader:
            inputs = batch.inputs if reads is None else batch.inputs[reads]
            if not isinstance(inputs, Tensor):
                raise UserError(
                    "precision=int8: takes the ranges of activations from a single input; of texts precision=int8_dynamic"
                )
            found.append(inputs if raw is None else raw(inputs))
            if sum(map(len, found)) >= CALIBRATION:
                break
    finally:
        loader.close()
    if not found:
        raise UserError("precision=int8: there are no training samples to take the ranges of activations from")
    return torch.cat(found)[:CALIBRATION]
