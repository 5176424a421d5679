"""Whether this machine has what ``trainer.accelerator`` asks for: known before data are read or anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator

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
