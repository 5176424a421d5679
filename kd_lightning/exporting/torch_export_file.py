"""torch's own exported program (``torch.export``): graph and weights, run without the student's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.exporting.named_inputs import Inputs, any_length, calling_by_name


class TorchExportExporter:
    """``torch.export.load(path).module()`` takes any number of samples."""

    suffix = ".pt2"
    holds_graph = True

    def write(self, model: nn.Module, example: Inputs, path: Path) -> None:
        if isinstance(example, Mapping):
            program = torch.export.export(model, (), dict(example), dynamic_shapes=any_length(example))
        else:
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, str(path))

    def open(self, path: Path, model: nn.Module) -> Callable[[Inputs], Any]:
        return calling_by_name(torch.export.load(str(path)).module())
