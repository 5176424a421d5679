"""TorchScript: graph and weights for libtorch and its mobile builds. Its tracer is deprecated in torch, and still there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class TorchScriptExporter:
    """``torch.jit.load(path)`` takes any number of samples; what the tracer took for constants, the comparison shows."""

    suffix = ".torchscript"
    holds_graph = True

    def write(self, model: nn.Module, example: Tensor, path: Path) -> None:
        torch.jit.trace(model, (example,), check_trace=False).save(str(path))

    def open(self, path: Path, model: nn.Module) -> Callable[[Tensor], Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, as said above
            opened: Callable[[Tensor], Any] = torch.jit.load(str(path), map_location="cpu")
        return opened
