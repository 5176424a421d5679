"""ONNX: graph and weights in one file, run by onnxruntime and others without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.exporting.named_inputs import Inputs, any_length

INPUT, OUTPUT = "inputs", "logits"
"""What the graph calls them."""


class OnnxExporter:
    """One input ``inputs`` of any number of samples, or several by name, of texts of any length; one output ``logits``; weights are
    within the file."""

    suffix = ".onnx"
    holds_graph = True

    def write(self, model: nn.Module, example: Inputs, path: Path) -> None:
        given: dict[str, Any]
        if isinstance(example, Mapping):
            given = {
                "args": (),
                "kwargs": dict(example),
                "dynamic_shapes": any_length(example),
                "input_names": list(example),
            }
        else:
            given = {"args": (example,), "dynamic_shapes": ({0: torch.export.Dim("batch")},), "input_names": [INPUT]}
        program = torch.onnx.export(model, **given, dynamo=True, output_names=[OUTPUT], verbose=False)
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        program.save(str(path), external_data=False)

    def open(self, path: Path, model: nn.Module) -> Callable[[Inputs], Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # as many as the checkpoint is timed with
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        names = [wanted.name for wanted in session.get_inputs()]

        def call(inputs: Inputs) -> Tensor:
            given = inputs if isinstance(inputs, Mapping) else {INPUT: inputs}
            (logits,) = session.run([OUTPUT], {name: given[name].numpy() for name in names})
            return torch.from_numpy(logits)

        return call
