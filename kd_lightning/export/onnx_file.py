"""ONNX: graph and weights in one file, run by onnxruntime and others without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

INPUT, OUTPUT = "inputs", "logits"
"""What the graph calls them."""


class OnnxExporter:
    """One input ``inputs`` of any number of samples, one output ``logits``; weights are within the file."""

    suffix = ".onnx"
    holds_graph = True

    def write(self, model: nn.Module, example: Tensor, path: Path) -> None:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        program.save(str(path), external_data=False)

    def open(self, path: Path, model: nn.Module) -> Callable[[Tensor], Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # as many as the checkpoint is timed with
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def call(inputs: Tensor) -> Tensor:
            (logits,) = session.run([OUTPUT], {INPUT: inputs.numpy()})
            return torch.from_numpy(logits)

        return call
