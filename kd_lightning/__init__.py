"""kd-lightning: knowledge distillation experiments on PyTorch Lightning, Hydra and TensorBoard.

The names below are the public face; they are loaded when first asked for, so that ``import kd_lightning`` costs nothing.
Everything else may move between versions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_lightning.api.distill import distill
    from kd_lightning.api.sweep import sweep
    from kd_lightning.batch import Batch
    from kd_lightning.data.loader.threaded_loader import ThreadedLoader
    from kd_lightning.distiller import Distiller
    from kd_lightning.errors import UserError
    from kd_lightning.exporting.export_run import export
    from kd_lightning.member import Member
    from kd_lightning.method import Method
    from kd_lightning.outputs import ModelOutput
    from kd_lightning.running.open_run import open_run
    from kd_lightning.taps import Taps
    from kd_lightning.teachers.frozen import FrozenTeacher

__version__ = "0.1.0"  # the only place: pyproject.toml reads it here

__all__ = [
    "Batch",
    "Distiller",
    "FrozenTeacher",
    "Member",
    "Method",
    "ModelOutput",
    "Taps",
    "ThreadedLoader",
    "UserError",
    "__version__",
    "distill",
    "export",
    "open_run",
    "sweep",
]

_HOMES = {
    "Batch": "batch",
    "Distiller": "distiller",
    "FrozenTeacher": "teachers.frozen",
    "Member": "member",
    "Method": "method",
    "ModelOutput": "outputs",
    "Taps": "taps",
    "ThreadedLoader": "data.loader.threaded_loader",
    "UserError": "errors",
    "distill": "api.distill",
    "export": "exporting.export_run",
    "open_run": "running.open_run",
    "sweep": "api.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next time it is found without asking here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
