"""What ``trainer.accelerator`` asks for: whether this machine has it, and which device that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator

from kd_lightning.config.processes import one_process
from kd_lightning.errors import UserError


def require_accelerator(config: Mapping[str, Any]) -> None:
    """Stop where the accelerator is not on this machine.

    Raises:
        UserError: ``trainer.accelerator`` names one that is not here.
    """
    name = str(config["trainer"].get("accelerator") or "auto")
    known: dict[str, Any] = {"gpu": (CUDAAccelerator, MPSAccelerator)}
    known |= {key: (entry["accelerator"],) for key, entry in AcceleratorRegistry.items()}
    kinds = known.get(name)
    if kinds is not None and not any(kind.is_available() for kind in kinds):
        here = [key for key, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()]
        raise UserError(f"trainer.accelerator={name}: this machine has none; it has {', '.join(here)} (or auto)")


def training_device(config: Mapping[str, Any]) -> torch.device:
    """Where Lightning's Trainer will train, the first of several devices: there the teacher answers before it, too."""
    trainer = config["trainer"]
    accelerator = str(trainer.get("accelerator") or "auto")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        named = one_process(trainer)["devices"]
        return torch.device("cuda", int(named[0]) if isinstance(named, list) and named else 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
