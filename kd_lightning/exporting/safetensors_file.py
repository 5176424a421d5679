"""Weights alone, in the file format of Hugging Face: nothing in it can run. Read into the student's plain class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class SafetensorsExporter:
    """Names of tensors as in the student's ``state_dict()``; a tensor with two names is stored once."""

    suffix = ".safetensors"
    holds_graph = False

    def write(self, model: nn.Module, example: Tensor, path: Path) -> None:
        from safetensors.torch import save_model

        save_model(model, str(path), metadata={"format": "pt"})

    def open(self, path: Path, model: nn.Module) -> Callable[[Tensor], Any]:
        from safetensors.torch import load_model

        load_model(model, str(path), strict=True)
        return model.eval()
