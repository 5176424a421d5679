"""TorchScript: graph and weights for libtorch and its mobile builds. Its tracer is deprecated in torch, and still there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.exporting.named_inputs import Inputs, calling_by_name


class TorchScriptExporter:
    """``torch.jit.load(path)`` takes any number of samples; what the tracer took for constants, the comparison shows."""

    suffix = ".torchscript"
    holds_graph = True

    def write(self, model: nn.Module, example: Inputs, path: Path) -> None:
        named = isinstance(example, Mapping)
        given = {"example_kwarg_inputs": dict(example)} if named else {"example_inputs": (example,)}
        torch.jit.trace(model, check_trace=False, **given).save(str(path))

    def open(self, path: Path, model: nn.Module) -> Callable[[Inputs], Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, as said above
            return calling_by_name(torch.jit.load(str(path), map_location="cpu"))
