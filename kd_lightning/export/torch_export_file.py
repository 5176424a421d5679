"""torch's own exported program (``torch.export``): graph and weights, run without the student's code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class TorchExportExporter:
    """``torch.export.load(path).module()`` takes any number of samples."""

    suffix = ".pt2"
    holds_graph = True

    def write(self, model: nn.Module, example: Tensor, path: Path) -> None:
        batch = torch.export.Dim("batch")
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, str(path))

    def open(self, path: Path, model: nn.Module) -> Callable[[Tensor], Any]:
        return torch.export.load(str(path)).module()
